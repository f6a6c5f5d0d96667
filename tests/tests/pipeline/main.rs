//! The specification of the pipeline: from an event to an image, on every part but a real engine and a real registry.

mod architecture;
mod causes;
mod keeping;
mod leases;
mod logs;
mod pushes;
mod workers;
