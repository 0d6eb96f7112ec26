-- Health of an LLMEngine. Needs no standard library, so it works from argocd-cm as it does in Argo CD's own set.
--
-- Degraded makes a sync fail for good, so it is only what a person must mend: Stalled. What passes by itself is Progressing.
-- Conditions of an older spec count for nothing: a Ready of yesterday must not let the next sync wave through.

local function health(status, message)
  return { status = status, message = message }
end

local function said(condition)
  if condition.message == nil or condition.message == "" then
    return condition.reason
  end
  return condition.reason .. ": " .. condition.message
end

if obj.metadata.deletionTimestamp ~= nil then
  return health("Progressing", "It is being deleted")
end
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health("Progressing", "Waiting for the operator to see the newest spec")
end

local conditions = {}
for _, condition in ipairs(obj.status.conditions or {}) do
  if condition.observedGeneration == obj.metadata.generation and condition.reason ~= nil then
    conditions[condition.type] = condition
  end
end

local stalled, ready = conditions.Stalled, conditions.Ready
if stalled ~= nil and stalled.status == "True" then
  return health("Degraded", said(stalled))
end
if ready == nil then
  return health("Progressing", "Waiting for the operator")
end
if ready.status == "True" then
  return health("Healthy", ready.message)
end
if ready.status == "False" and ready.reason == "Suspended" then
  return health("Suspended", said(ready))
end
return health("Progressing", said(ready))
