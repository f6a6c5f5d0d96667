//! What belongs to a registry. Its name alone does not say to which: a registry that was made again under the name of a
//! deleted one is another.

use gantry_domain::delivery::Delivery;
use gantry_domain::event::Event;
use gantry_domain::hook::Hook;
use gantry_domain::id::{RegistryName, RunPrefix};
use gantry_domain::lineage::Lineage;
use gantry_domain::registry::Registry;
use gantry_domain::run::Run;
use gantry_domain::task::Task;

/// A registry, or what belongs to one.
pub(crate) trait OfRegistry {
    /// The registry's name, and its prefix, which no other has.
    fn registry(&self) -> (&RegistryName, RunPrefix);
}

macro_rules! of_registry {
    ($($record:ty: $of:ident => $name:expr, $prefix:expr;)*) => {
        $(
            impl OfRegistry for $record {
                fn registry(&self) -> (&RegistryName, RunPrefix) {
                    let $of = self;
                    ($name, $prefix)
                }
            }
        )*
    };
}

of_registry! {
    Registry: registry => &registry.name, registry.prefix;
    Task: task => &task.id.registry, task.prefix;
    Hook: hook => &hook.registry, hook.prefix;
    Delivery: delivery => &delivery.registry, delivery.prefix;
    Event: event => &event.registry, event.prefix;
    Run: run => &run.registry, run.id.prefix();
    Lineage: lineage => &lineage.registry, lineage.run.prefix();
}
