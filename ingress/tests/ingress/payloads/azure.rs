//! Azure DevOps. The payloads have the documented form, with the user in the address as live ones have it.

use gantry_domain::hook::Provider;

use super::assert_meanings;

const REDUCED: &str = "unreadable: the notification has no repository: set \"Resource details to send\" to \"All\" in the subscription";

#[test]
fn every_payload_means_what_was_expected() {
    let expected = [
        ("push-branch", "branch main a1b2c3d..b2c3d4e of dev.azure.com/fabrikam/shop/_git/web (default main) by Jamal Hartnett, files unknown"),
        ("push-three-refs", "branch main a1b2c3d..b2c3d4e of dev.azure.com/fabrikam/shop/_git/web (default main) by Jamal Hartnett, files unknown
branch feature/x none..c3d4e5f of dev.azure.com/fabrikam/shop/_git/web (default main) by Jamal Hartnett, files unknown
tag v1.2 d4e5f6a..none of dev.azure.com/fabrikam/shop/_git/web (default main) by Jamal Hartnett, files unknown"),
        ("push-new-tag", "tag v1.2 none..c3d4e5f of dev.azure.com/fabrikam/shop/_git/web (default main) by Jamal Hartnett, files unknown"),
        ("push-deleted-branch", "branch old a1b2c3d..none of dev.azure.com/fabrikam/shop/_git/web (default main) by Jamal Hartnett, files unknown"),
        ("push-skip-mark", "branch main a1b2c3d..b2c3d4e of dev.azure.com/fabrikam/shop/_git/web (default main) by Jamal Hartnett, files unknown, asks to skip
branch dev a1b2c3d..c3d4e5f of dev.azure.com/fabrikam/shop/_git/web (default main) by Jamal Hartnett, files unknown"),
        ("push-skip-mark-of-an-older-commit", "branch main a1b2c3d..b2c3d4e of dev.azure.com/fabrikam/shop/_git/web (default main) by Jamal Hartnett, files unknown"),
        ("push-visualstudio", "branch main a1b2c3d..b2c3d4e of dev.azure.com/fabrikam-fiber-inc/fabrikam-fiber-git/_git/fabrikam-fiber-git (default main) by Jamal Hartnett, files unknown"),
        ("push-server", "branch main a1b2c3d..b2c3d4e of tfs.example/tfs/defaultcollection/shop/_git/web (default main) by Jamal Hartnett, files unknown"),
        ("push-space-in-project", "branch main a1b2c3d..b2c3d4e of dev.azure.com/fabrikam/shop%20one/_git/web (default main) by Jamal Hartnett, files unknown"),
        ("push-notes", "nothing: it moved neither a branch nor a tag"),
        // The other branch is not lost.
        ("push-one-invalid-ref", "branch main a1b2c3d..b2c3d4e of dev.azure.com/fabrikam/shop/_git/web (default main) by Jamal Hartnett, files unknown"),
        ("push-minimal", REDUCED),
        ("push-none", REDUCED),
        ("pr-created", "opened 7 mytopic@b2c3d4e to main of dev.azure.com/fabrikam/shop/_git/web, by Jamal Hartnett (stranger); at heads/mytopic pull/7/merge"),
        ("pr-created-by-fork", "opened 7 mytopic@b2c3d4e to main of dev.azure.com/fabrikam/shop/_git/web, merge c3d4e5f, by Jamal Hartnett (stranger), fork; at pull/7/merge"),
        ("pr-created-draft", "opened 7 mytopic@b2c3d4e to main of dev.azure.com/fabrikam/shop/_git/web, merge c3d4e5f, by Jamal Hartnett (stranger), labels docs ci, draft; at heads/mytopic pull/7/merge"),
        ("pr-updated-head", "changed 7 mytopic@d4e5f6a to main of dev.azure.com/fabrikam/shop/_git/web, merge c3d4e5f, by Jamal Hartnett (stranger); at heads/mytopic pull/7/merge"),
        ("pr-updated-vote", "changed 7 mytopic@b2c3d4e to main of dev.azure.com/fabrikam/shop/_git/web, merge c3d4e5f, by Jamal Hartnett (stranger); at heads/mytopic pull/7/merge"),
        ("pr-completed", "closed 7 mytopic@b2c3d4e to main of dev.azure.com/fabrikam/shop/_git/web, merge c3d4e5f, by Jamal Hartnett (stranger), closed; at heads/mytopic pull/7/merge"),
        ("pr-abandoned", "closed 7 mytopic@b2c3d4e to main of dev.azure.com/fabrikam/shop/_git/web, merge c3d4e5f, by Jamal Hartnett (stranger), closed; at heads/mytopic pull/7/merge"),
        ("pr-merge-attempted", "changed 7 mytopic@b2c3d4e to main of dev.azure.com/fabrikam/shop/_git/web, merge c3d4e5f, by Jamal Hartnett (stranger); at heads/mytopic pull/7/merge"),
        ("pr-merge-conflict", "changed 7 mytopic@b2c3d4e to main of dev.azure.com/fabrikam/shop/_git/web, by Jamal Hartnett (stranger); at heads/mytopic pull/7/merge"),
        ("pr-minimal", REDUCED),
        ("pr-commented-on", "nothing: nothing starts on `ms.vss-code.git-pullrequest-comment-event`"),
        ("work-item-updated", "nothing: nothing starts on `workitem.updated`"),
    ]
    .map(|(file, meaning)| (file, "", meaning));
    assert_meanings(Provider::AzureDevOps, &expected);
}
