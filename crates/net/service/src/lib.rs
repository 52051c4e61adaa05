//! Services compiled to nftables value maps.
//!
//! No Service has an object of its own in the kernel. A packet's destination is looked up in one map that leads to a
//! *class* (how many endpoints, which policies), a small verdict map leads from the class to a chain, and the chain
//! picks an endpoint by number from one map of all endpoints. Adding a Service is adding elements.
//!
//! [`compile`](compile::compile) and [`Tables`] are pure; [`Dataplane`] carries their changes out; [`Proxy`] feeds
//! them from the API.

mod class;
pub mod compile;
mod dataplane;
mod elements;
mod flows;
mod health;
mod input;
mod model;
mod proxy;
mod rules;
mod tables;

pub use class::{Chain, Class};
pub use dataplane::{Dataplane, DataplaneError};
pub use elements::{Changes, Elements, SetId, diff};
pub use flows::FlowCheck;
pub use input::{NodeInfo, ServiceInfo, ServicePortInfo, SliceEndpoint, SliceInfo};
pub use model::{Endpoint, Front, FrontKey, Transport};
pub use proxy::{Proxy, ProxyConfig, ProxyError};
pub use rules::RuleConfig;
pub use tables::{Tables, Touched};
