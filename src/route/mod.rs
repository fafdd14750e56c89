//! The router: a pure function from a template and its bindings to a plan.
