//! P-1 to P-18: PostgreSQL's types.
