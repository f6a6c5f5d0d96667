//! The specification of the pipeline, from an event to an image, with all parts except a real engine and a real
//! registry.
//!
//! Tests run in both modes: over SQLite and channels in memory, and over Redis and RabbitMQ.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step of a test that cannot be done has failed"
)]
#![allow(clippy::duplicate_mod, reason = "one specification, two modes")]

mod architecture;
mod documents;
mod modules;

/// `gantry up`.
#[path = "."]
mod embedded {
    use gantry_tests::backend::Backend;
    use gantry_tests::pipeline::TestPipeline;

    /// The size of a crowd of runs: more than anything reads at once.
    const CROWD: usize = 500;

    mod admission;
    mod archive;
    mod base_image_model;
    mod base_images;
    mod bitbucket;
    mod branches;
    mod causes;
    mod clocks;
    mod credentials;
    mod crowds;
    mod declared_secrets;
    mod doctor;
    mod fairness;
    mod forged;
    mod github_app;
    mod hosts;
    mod image_limits;
    mod image_users;
    mod incarnations;
    mod keeping;
    mod leases;
    mod legs;
    mod lineage;
    mod logs;
    mod lost_answers;
    mod lost_hooks;
    mod notifications;
    mod order;
    mod outbox;
    mod platforms;
    mod poison;
    mod pools;
    mod pull_requests;
    mod pushes;
    mod reconcile;
    mod reports;
    mod requests;
    mod room;
    mod scans;
    mod secrets;
    mod simulations;
    mod ssh;
    mod steps;
    mod tag_policies;
    mod task_files;
    mod timers;
    mod trigger_rules;
    mod webhooks;
    mod workers;

    async fn start() -> TestPipeline {
        TestPipeline::start(Backend::Embedded).await
    }
}

/// Separate roles: tests that depend on how the store orders, counts and notifies.
#[path = "."]
mod scaled {
    use gantry_tests::backend::Backend;
    use gantry_tests::pipeline::TestPipeline;

    mod admission;
    mod base_images;
    mod clocks;
    mod forged;
    mod image_users;
    mod leases;
    mod lost_answers;
    mod lost_hooks;
    mod notifications;
    mod order;
    mod outbox;
    mod pushes;
    mod redis_user;
    mod room;
    mod secrets;
    mod timers;
    mod webhooks;

    async fn start() -> TestPipeline {
        TestPipeline::start(Backend::Scaled).await
    }
}

/// Tests that do not depend on the store, run on the other store as well.
#[path = "."]
mod slow {
    #[path = "."]
    mod scaled {
        use gantry_tests::backend::Backend;
        use gantry_tests::pipeline::TestPipeline;

        /// The size of a crowd of runs.
        const CROWD: usize = 5_000;

        mod archive;
        mod base_image_model;
        mod branches;
        mod causes;
        mod credentials;
        mod crowds;
        mod declared_secrets;
        mod fairness;
        mod github_app;
        mod hosts;
        mod incarnations;
        mod keeping;
        mod legs;
        mod lineage;
        mod logs;
        mod platforms;
        mod poison;
        mod pools;
        mod reports;
        mod requests;
        mod scans;
        mod steps;
        mod task_files;
        mod workers;

        async fn start() -> TestPipeline {
            TestPipeline::start(Backend::Scaled).await
        }
    }
}
