"""Types of the resources, conditions and reasons, and the version table. Pure."""
