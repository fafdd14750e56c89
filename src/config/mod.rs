//! The settings of `pgweir.yaml`: one definition each, from which defaults, docs and validation derive.
