//! Shared informers, work queues and the shape of a controller.
