//! Whether a change of an image would rebuild a task that needs it.

use gantry_domain::decide::Rule;
use gantry_domain::task::Status;
use gantry_domain::tracked_image::TrackedImage;
use gantry_domain::wave::{LastBuild, NodeTask};
use gantry_seams::image_users::User;
use gantry_seams::store::{Store, StoreError};
use gantry_seams::{task_images, tasks};

/// Whether a change of the image rebuilds the task, or the first rule that says no. `None` if the task is gone, or does not
/// need the image any more. `last` is the task's last build.
pub(super) async fn counts(
    store: &dyn Store,
    of: &NodeTask,
    user: &User,
    image: &TrackedImage,
    last: Option<&LastBuild>,
) -> Result<Option<Result<(), Rule>>, StoreError> {
    let Some(task) = tasks::find(store, &of.task).await?.filter(|task| of.is(task)) else {
        return Ok(None);
    };
    let read = task_images::find(store, &task).await?.read;
    let needed = read.map(|read| read.needed.images().to_vec()).unwrap_or_default();
    let own = needed.iter().filter(|it| it.platform == user.platform);
    let policies = &task.recipe.follows;
    let own = own.filter(|it| policies.track(&it.image).as_ref() == Some(image));
    let Some(needed) = own.min_by_key(|it| it.role) else { return Ok(None) };
    let counts = match &task.base_image_trigger {
        _ if task.status == Status::Disabled => Err(Rule::TaskDisabled),
        None => Err(Rule::BaseImagesOff),
        Some(trigger) => trigger.counts(needed),
    };
    let is_own = last.is_some_and(|last| last.makes(image));
    Ok(Some(counts.and(if is_own { Err(Rule::OwnImage) } else { Ok(()) })))
}
