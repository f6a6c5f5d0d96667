//! Which registry an object belongs to. The name alone does not identify it: a registry that was deleted and created
//! again is another one.

use gantry_domain::delivery::Delivery;
use gantry_domain::event::Event;
use gantry_domain::hook::Hook;
use gantry_domain::id::{RegistryName, RunPrefix};
use gantry_domain::lineage::Lineage;
use gantry_domain::registry::Registry;
use gantry_domain::run::Run;
use gantry_domain::task::Task;
use gantry_domain::wave::Wave;

/// A registry, or an object that belongs to one.
pub(crate) trait OfRegistry {
    /// The registry's name and its unique prefix.
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
    Wave: wave => &wave.registry, wave.id.prefix();
    Lineage: lineage => &lineage.registry, lineage.run.prefix();
}
