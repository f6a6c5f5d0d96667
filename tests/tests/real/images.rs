//! What the real engine pushes, as gantry's looks at the real registry see it.

use std::collections::BTreeSet;

use gantry_domain::lineage::OutputImage;
use gantry_domain::run::RunStatus;
use gantry_domain::task::Task;
use gantry_remote::guard::OutboundPolicy;
use gantry_remote::http::OutboundClient;
use gantry_remote::image_registry::{ImageRegistry as _, RemoteImageRegistry};
use gantry_seams::runs;
use gantry_tests::pipeline::TestPipeline;
use gantry_tests::real;

use crate::builds::{ask, installation, task, unique};

/// Runs the task, and returns what it pushed.
async fn pushed(gantry: &TestPipeline, task: &Task) -> OutputImage {
    let id = ask(gantry, task).await;
    assert!(gantry.real_worker("w").turn(&gantry.stop).await.unwrap());
    let run = runs::find(gantry.store.as_ref(), id).await.unwrap().unwrap();
    assert_eq!(run.status(), RunStatus::Succeeded, "{:?}", run.state);
    run.state.done().unwrap().outcome.product().unwrap().outputs[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_build_of_the_same_content_has_another_digest_and_the_same_content_key() {
    let gantry = installation().await;
    let name = unique("looks");
    let same = task(&gantry, &name, "FROM BASE\nENV A=1\nLABEL team=web\n", &name).await;
    let (first, second) = (pushed(&gantry, &same).await, pushed(&gantry, &same).await);
    let other = unique("looks");
    let other = task(&gantry, &other, "FROM BASE\nENV A=2\nLABEL team=web\n", &name).await;
    let third = pushed(&gantry, &other).await;

    let policy = OutboundPolicy::parse([real::registry().as_str()]).unwrap();
    let looks = RemoteImageRegistry::new(OutboundClient::new(policy).unwrap()).unwrap();
    let now = looks.digest(&third.image, None, None).await.unwrap().value;
    assert_eq!(now.as_ref(), Some(&third.digest));
    let mut contents = Vec::new();
    for output in [&first, &second, &third] {
        let wanted = BTreeSet::from([same.recipe.platforms.first().clone()]);
        let found = looks.versions(&output.image, &output.digest, &wanted, None).await.unwrap();
        contents.push(found.value.by_platform[same.recipe.platforms.first()].content.clone());
    }
    // The labels of the two runs differ, and so do the times in their configurations.
    assert_ne!(first.digest, second.digest);
    assert_eq!(contents[0], contents[1]);
    assert_ne!(contents[0], contents[2]);
}
