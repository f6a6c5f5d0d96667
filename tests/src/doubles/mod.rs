//! What stands before a real part: it is asked first, and may see, count, refuse or lose what goes through.

pub mod store;
