//! The xebec/toolbox image: what diagnosis and examples need, without a registry.
