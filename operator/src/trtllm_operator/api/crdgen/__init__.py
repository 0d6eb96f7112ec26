"""Resource definitions (CRDs) from the types. Pure: types in, documents out."""
