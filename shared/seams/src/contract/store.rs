//! What a [`Store`] must do.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use tokio::sync::mpsc;

use super::{fresh, soon};
use crate::store::{
    Batch, CommitError, Entry, Expect, From, Index, Key, Kind, Record, SharedStore, Store, Stored,
    Walk,
};

/// Runs every sentence that one open store can show.
pub async fn all(store: &dyn Store) {
    a_record_is_read_as_it_was_put(store).await;
    records_are_loaded_in_the_order_of_their_keys(store).await;
    an_id_may_have_any_characters(store).await;
    a_value_may_be_a_mebibyte_or_nothing(store).await;
    a_batch_is_done_whole(store).await;
    a_conflict_names_the_key_and_leaves_nothing(store).await;
    a_batch_may_expect_without_writing(store).await;
    preconditions_speak_of_what_was_before_the_batch(store).await;
    a_batch_removes_before_it_writes(store).await;
    removing_what_is_not_there_is_no_error(store).await;
    versions_grow_also_over_delete(store).await;
    a_batch_may_have_three_hundred_changes(store).await;
    an_index_is_read_in_the_order_of_score_and_member(store).await;
    a_range_begins_at_a_score(store).await;
    a_range_goes_on_after_an_entry_that_is_gone(store).await;
    a_member_moves_within_its_index(store).await;
    indexes_do_not_see_each_other(store).await;
    a_hundred_concurrent_increments_lose_nothing(store).await;
    of_many_who_create_one_wins(store).await;
    a_load_sees_one_moment(store).await;
    a_watch_tells_of_a_commit_that_can_be_read(store).await;
    a_watch_tells_of_what_came_between_two_waits(store).await;
    the_clock_never_goes_back(store).await;
}

pub async fn a_record_is_read_as_it_was_put(store: &dyn Store) {
    let key = key("plain");
    assert_eq!(load(store, &key).await, None);
    let bytes: Vec<u8> = (0..=255).collect();
    put(store, &key, bytes.clone()).await;
    assert_eq!(load(store, &key).await.unwrap().bytes, bytes);
}

pub async fn records_are_loaded_in_the_order_of_their_keys(store: &dyn Store) {
    let id = fresh("order");
    let run = Key::new(Kind::Run, &id);
    let task = Key::new(Kind::Task, &id);
    put(store, &run, "run").await;
    put(store, &task, "task").await;
    let absent = key("absent");

    let found = store.load(&[task.clone(), absent, run, task]).await.unwrap();
    let found: Vec<_> = found.iter().map(|record| record.as_ref().map(|r| &r.bytes[..])).collect();
    assert_eq!(found, [Some(&b"task"[..]), None, Some(b"run"), Some(b"task")]);
    assert_eq!(store.load(&[]).await.unwrap(), []);
}

pub async fn an_id_may_have_any_characters(store: &dyn Store) {
    let begin = fresh("odd");
    let ids = [
        "", " ", "/", "a/b", "A/B", "{x}", "'\";--", "%_*?[", "\n\t", "\0", "ä", "Ä", "日本", "🦀",
    ];
    let index = index("odd");
    let mut batch = Batch::default();
    for id in ids {
        batch.create(Key::new(Kind::Fact, format!("{begin}{id}")), id);
        batch.index(index.clone(), 0, id);
    }
    store.commit(batch).await.unwrap();

    let keys: Vec<_> = ids.iter().map(|id| Key::new(Kind::Fact, format!("{begin}{id}"))).collect();
    for (record, id) in store.load(&keys).await.unwrap().into_iter().zip(ids) {
        assert_eq!(record.unwrap().bytes, id, "the record of {id:?}");
    }
    // By their bytes, whatever a language thinks of them.
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    assert_eq!(members(store, &index, From::Start).await, sorted);
}

pub async fn a_value_may_be_a_mebibyte_or_nothing(store: &dyn Store) {
    let (large, empty) = (key("large"), key("empty"));
    let bytes: Vec<u8> = (0..=250).cycle().take(1 << 20).collect();
    put(store, &large, bytes.clone()).await;
    put(store, &empty, Bytes::new()).await;
    assert_eq!(load(store, &large).await.unwrap().bytes, bytes);
    assert_eq!(load(store, &empty).await.unwrap().bytes, Bytes::new());
}

pub async fn a_batch_is_done_whole(store: &dyn Store) {
    let (kept, removed, made) = (key("kept"), key("removed"), key("made"));
    let index = index("whole");
    let mut batch = Batch::default();
    batch.create(kept.clone(), "1");
    batch.create(removed.clone(), "1");
    batch.index(index.clone(), 1, "leaves");
    store.commit(batch).await.unwrap();
    let version = load(store, &kept).await.unwrap().version;

    let mut batch = Batch::default();
    batch.replace(kept.clone(), version, "2");
    batch.create(made.clone(), "2");
    batch.delete.push(removed.clone());
    batch.index(index.clone(), 2, "comes");
    batch.unindex(index.clone(), "leaves");
    store.commit(batch).await.unwrap();

    assert_eq!(load(store, &kept).await.unwrap().bytes, "2");
    assert_eq!(load(store, &made).await.unwrap().bytes, "2");
    assert_eq!(load(store, &removed).await, None);
    assert_eq!(members(store, &index, From::Start).await, ["comes"]);
}

pub async fn a_conflict_names_the_key_and_leaves_nothing(store: &dyn Store) {
    let (there, moved, other) = (key("there"), key("moved"), key("other"));
    let index = index("conflict");
    put(store, &there, "before").await;
    put(store, &moved, "first").await;
    let old = load(store, &moved).await.unwrap().version;
    put(store, &moved, "second").await;
    let mut setup = Batch::default();
    setup.index(index.clone(), 5, "stays");
    store.commit(setup).await.unwrap();

    let mut attempt = Batch::default();
    attempt.put(there.clone(), "after");
    attempt.put(other.clone(), "after");
    attempt.delete.push(moved.clone());
    attempt.index(index.clone(), 6, "stays");
    attempt.index(index.clone(), 1, "new");
    for (refused, expected) in [
        (&moved, Expect::Version(old)),
        (&moved, Expect::Absent),
        (&other, Expect::Version(old)),
        (&other, Expect::Version(0)),
        (&other, Expect::Version(u64::MAX)),
    ] {
        let mut batch = attempt.clone();
        batch.expect.push((refused.clone(), expected));
        assert_conflict(store.commit(batch).await, refused);
    }
    // The first that does not hold is named, also among those that do.
    let mut batch = attempt;
    batch.expect.push((other.clone(), Expect::Absent));
    batch.expect.push((moved.clone(), Expect::Absent));
    batch.expect.push((there.clone(), Expect::Absent));
    assert_conflict(store.commit(batch).await, &moved);

    assert_eq!(load(store, &there).await.unwrap().bytes, "before");
    assert_eq!(load(store, &moved).await.unwrap().bytes, "second");
    assert_eq!(load(store, &other).await, None);
    let entries = store.range(&index, From::Start, 10).await.unwrap();
    assert_eq!(entries, [entry(5, "stays")]);
}

pub async fn a_batch_may_expect_without_writing(store: &dyn Store) {
    let key = key("expected");
    let mut batch = Batch::default();
    batch.expect.push((key.clone(), Expect::Absent));
    store.commit(batch.clone()).await.unwrap();
    put(store, &key, "there").await;
    assert_conflict(store.commit(batch).await, &key);
    store.commit(Batch::default()).await.unwrap();
}

pub async fn preconditions_speak_of_what_was_before_the_batch(store: &dyn Store) {
    let key = key("twice");
    let mut batch = Batch::default();
    batch.create(key.clone(), "1");
    batch.create(key.clone(), "2");
    store.commit(batch).await.unwrap();
    // Of two writes to one key the later one stays.
    assert_eq!(load(store, &key).await.unwrap().bytes, "2");
}

pub async fn a_batch_removes_before_it_writes(store: &dyn Store) {
    let key = key("again");
    let index = index("again");
    let mut batch = Batch::default();
    batch.put(key.clone(), "there");
    batch.delete.push(key.clone());
    batch.index(index.clone(), 7, "there");
    batch.unindex(index.clone(), "there");
    store.commit(batch.clone()).await.unwrap();
    store.commit(batch).await.unwrap();
    assert_eq!(load(store, &key).await.unwrap().bytes, "there");
    assert_eq!(members(store, &index, From::Start).await, ["there"]);
}

pub async fn removing_what_is_not_there_is_no_error(store: &dyn Store) {
    let mut batch = Batch::default();
    batch.delete.push(key("never"));
    batch.unindex(index("never"), "never");
    store.commit(batch).await.unwrap();
}

pub async fn versions_grow_also_over_delete(store: &dyn Store) {
    let key = key("versions");
    let mut last = 0;
    for _ in 0..3 {
        for value in ["same", "same", "other"] {
            put(store, &key, value).await;
            let version = load(store, &key).await.unwrap().version;
            assert!(version > last, "{version} after {last}");
            last = version;
        }
        let mut batch = Batch::default();
        batch.delete.push(key.clone());
        store.commit(batch).await.unwrap();
    }
    // So a writer that still holds a version from before the delete cannot pass for the record of now.
    put(store, &key, "anew").await;
    let mut batch = Batch::default();
    batch.replace(key.clone(), last, "late");
    assert_conflict(store.commit(batch).await, &key);
}

pub async fn a_batch_may_have_three_hundred_changes(store: &dyn Store) {
    let id = fresh("many");
    let keys: Vec<_> = (0..300).map(|n| Key::new(Kind::Event, format!("{id}/{n}"))).collect();
    let index = index("many");
    let mut batch = Batch::default();
    for (score, key) in (0..).zip(&keys) {
        batch.create(key.clone(), key.id.clone());
        batch.index(index.clone(), score, &key.id);
    }
    store.commit(batch).await.unwrap();
    for (record, key) in store.load(&keys).await.unwrap().into_iter().zip(&keys) {
        assert_eq!(record.unwrap().bytes, key.id);
    }
    let found = store.range(&index, From::Start, 1_000).await.unwrap();
    assert!(found.iter().map(|entry| &entry.member).eq(keys.iter().map(|key| &key.id)));
}

pub async fn an_index_is_read_in_the_order_of_score_and_member(store: &dyn Store) {
    let index = index("order");
    let ordered = [
        entry(i64::MIN, "lowest"),
        entry(-1_700_000_000_000, "b"),
        entry(-10, "a"),
        entry(-9, "a2"),
        entry(0, "A"),
        entry(0, "B"),
        entry(0, "a0"),
        entry(9, "nine"),
        entry(10, "ten"),
        // Two that a number with a fraction could not tell apart.
        entry(9_007_199_254_740_992, "z"),
        entry(9_007_199_254_740_993, "y"),
        entry(i64::MAX, "highest"),
    ];
    let mut batch = Batch::default();
    batch.index.extend(ordered.iter().rev().map(|entry| (index.clone(), entry.clone())));
    store.commit(batch).await.unwrap();

    assert_eq!(store.range(&index, From::Start, 100).await.unwrap(), ordered);
    assert_eq!(store.range(&index, From::Start, 3).await.unwrap(), ordered[..3]);
    assert_eq!(store.range(&index, From::Start, 0).await.unwrap(), []);
    // Entry by entry, as a reader with a cursor walks it.
    let mut walked = Vec::new();
    let mut from = From::Start;
    while let Some(entry) = store.range(&index, from, 1).await.unwrap().pop() {
        walked.push(entry.clone());
        from = From::After(entry);
    }
    assert_eq!(walked, ordered);
}

pub async fn a_range_begins_at_a_score(store: &dyn Store) {
    let index = index("score");
    let mut batch = Batch::default();
    for (score, member) in [(-5, "a"), (-5, "b"), (0, "c"), (7, "d")] {
        batch.index(index.clone(), score, member);
    }
    store.commit(batch).await.unwrap();
    for (score, found) in [
        (i64::MIN, &["a", "b", "c", "d"][..]),
        (-5, &["a", "b", "c", "d"]),
        (-4, &["c", "d"]),
        (7, &["d"]),
        (8, &[]),
        (i64::MAX, &[]),
    ] {
        assert_eq!(members(store, &index, From::Score(score)).await, found, "from {score}");
    }
}

pub async fn a_range_goes_on_after_an_entry_that_is_gone(store: &dyn Store) {
    let index = index("gone");
    let mut batch = Batch::default();
    for (score, member) in [(-2, "a"), (-2, "c"), (-2, "e"), (3, "a2")] {
        batch.index(index.clone(), score, member);
    }
    store.commit(batch).await.unwrap();
    let mut batch = Batch::default();
    batch.unindex(index.clone(), "c");
    store.commit(batch).await.unwrap();

    for (after, found) in [
        (entry(-2, "c"), &["e", "a2"][..]),
        (entry(-2, "b"), &["e", "a2"]),
        (entry(-2, ""), &["a", "e", "a2"]),
        (entry(-3, "z"), &["a", "e", "a2"]),
        (entry(0, "z"), &["a2"]),
        (entry(3, "a2"), &[]),
    ] {
        assert_eq!(members(store, &index, From::After(after.clone())).await, found, "{after:?}");
    }
}

pub async fn a_member_moves_within_its_index(store: &dyn Store) {
    let index = index("moves");
    for score in [5, -5, -5, 9] {
        let mut batch = Batch::default();
        batch.index(index.clone(), score, "member");
        store.commit(batch).await.unwrap();
        let found = store.range(&index, From::Start, 10).await.unwrap();
        assert_eq!(found, [entry(score, "member")]);
    }
}

pub async fn indexes_do_not_see_each_other(store: &dyn Store) {
    let path = fresh("nested");
    let paths = [path.clone(), format!("{path}/"), format!("{path}/a"), format!("{path}a")];
    let mut batch = Batch::default();
    for path in &paths {
        batch.index(Index::new(path), 1, path);
        batch.index(Index::new(path), 2, "shared");
    }
    store.commit(batch).await.unwrap();
    let mut batch = Batch::default();
    batch.unindex(Index::new(&paths[0]), "shared");
    store.commit(batch).await.unwrap();

    assert_eq!(members(store, &Index::new(&paths[0]), From::Start).await, [&paths[0][..]]);
    for path in &paths[1..] {
        assert_eq!(members(store, &Index::new(path), From::Start).await, [path, "shared"]);
    }
}

pub async fn a_hundred_concurrent_increments_lose_nothing(store: &dyn Store) {
    let key = key("counter");
    put(store, &key, "0").await;
    let increment = async || {
        loop {
            let Record { version, bytes } = load(store, &key).await.unwrap();
            let count: u32 = std::str::from_utf8(&bytes).unwrap().parse().unwrap();
            let mut batch = Batch::default();
            batch.replace(key.clone(), version, (count + 1).to_string());
            match store.commit(batch).await {
                Ok(()) => return,
                Err(CommitError::Conflict { .. }) => {}
                Err(CommitError::Store(error)) => panic!("{error}"),
            }
        }
    };
    soon("all increments", join_all((0..100).map(|_| increment()))).await;
    assert_eq!(load(store, &key).await.unwrap().bytes, "100");
}

pub async fn of_many_who_create_one_wins(store: &dyn Store) {
    let key = key("first");
    let index = index("first");
    let create = async |n: u32| {
        let mut batch = Batch::default();
        batch.create(key.clone(), n.to_string());
        batch.index(index.clone(), i64::from(n), n);
        match store.commit(batch).await {
            Ok(()) => Some(n),
            Err(CommitError::Conflict { .. }) => None,
            Err(CommitError::Store(error)) => panic!("{error}"),
        }
    };
    let won: Vec<_> = join_all((0..50).map(create)).await.into_iter().flatten().collect();
    assert_eq!(won.len(), 1);
    assert_eq!(load(store, &key).await.unwrap().bytes, won[0].to_string());
    assert_eq!(members(store, &index, From::Start).await, [won[0].to_string()]);
}

pub async fn a_load_sees_one_moment(store: &dyn Store) {
    let id = fresh("pair");
    let pair = [Key::new(Kind::Run, &id), Key::new(Kind::Task, &id)];
    let write = async {
        for n in 0..50 {
            let mut batch = Batch::default();
            for key in &pair {
                batch.put(key.clone(), n.to_string());
            }
            store.commit(batch).await.unwrap();
        }
    };
    let read = async {
        for _ in 0..50 {
            let found = store.load(&pair).await.unwrap();
            let [left, right] = found.as_slice() else { panic!("two keys, {found:?}") };
            assert_eq!(left.as_ref().map(|r| &r.bytes), right.as_ref().map(|r| &r.bytes));
        }
    };
    futures_util::join!(write, read);
}

pub async fn a_watch_tells_of_a_commit_that_can_be_read(store: &dyn Store) {
    let key = key("watched");
    let waited = async {
        let mut watch = store.watch(&key);
        // It may tell more often than there are commits, but after each of them.
        let told = async {
            loop {
                watch.changed().await;
                if let Some(record) = load(store, &key).await {
                    break record;
                }
            }
        };
        let (record, ()) = futures_util::join!(told, put(store, &key, "there"));
        assert_eq!(record.bytes, "there");
        let removed = async {
            watch.changed().await;
            while load(store, &key).await.is_some() {
                watch.changed().await;
            }
        };
        let mut batch = Batch::default();
        batch.delete.push(key.clone());
        let ((), committed) = futures_util::join!(removed, store.commit(batch));
        committed.unwrap();
    };
    soon("the watch of a put and a delete", waited).await;
}

pub async fn a_watch_tells_of_what_came_between_two_waits(store: &dyn Store) {
    let key = key("between");
    let (mut one, mut another) = (store.watch(&key), store.watch(&key));
    put(store, &key, "1").await;
    soon("the first watch", one.changed()).await;
    soon("the second watch", another.changed()).await;
    put(store, &key, "2").await;
    soon("the first watch again", one.changed()).await;
}

pub async fn the_clock_never_goes_back(store: &dyn Store) {
    let mut last = store.now().await.unwrap();
    for _ in 0..20 {
        let now = store.now().await.unwrap();
        assert!(now >= last, "{now} after {last}");
        last = now;
    }
}

/// For an adapter whose store can be closed and opened again. `open` is called only after the store that it gave before
/// is dropped.
pub async fn what_was_committed_is_there_after_opening_again(open: impl AsyncFn() -> SharedStore) {
    let (kept, removed) = (key("kept"), key("removed"));
    let index = index("kept");
    let store = open().await;
    put(&*store, &removed, "removed").await;
    let mut batch = Batch::default();
    batch.create(kept.clone(), "kept");
    batch.delete.push(removed.clone());
    batch.index(index.clone(), -1, "kept");
    store.commit(batch).await.unwrap();
    let record = load(&*store, &kept).await.unwrap();
    let last = store.now().await.unwrap();
    drop(store);

    let store = open().await;
    assert_eq!(load(&*store, &kept).await, Some(record.clone()));
    assert_eq!(load(&*store, &removed).await, None);
    assert_eq!(store.range(&index, From::Start, 10).await.unwrap(), [entry(-1, "kept")]);
    // Versions and the clock go on from where they were.
    put(&*store, &removed, "anew").await;
    assert!(load(&*store, &removed).await.unwrap().version > record.version);
    let now = store.now().await.unwrap();
    assert!(now >= last, "{now} after {last}");
}

/// For an adapter whose store can be opened by several processes: commits and watches reach across them.
pub async fn what_one_commits_another_sees(one: &dyn Store, another: &dyn Store) {
    let keys: Vec<_> = (0..10).map(|_| key("shared")).collect();
    let create = async |store: &dyn Store, by: &str| {
        let mut won = 0;
        for key in &keys {
            let mut batch = Batch::default();
            batch.create(key.clone(), by.to_owned());
            won += u32::from(store.commit(batch).await.is_ok());
        }
        won
    };
    let (left, right) = futures_util::join!(create(one, "one"), create(another, "another"));
    assert_eq!(left + right, 10);
    let seen = try_join_all([one.load(&keys), another.load(&keys)]).await.unwrap();
    assert_eq!(seen[0], seen[1]);

    let mut watch = another.watch(&keys[0]);
    put(one, &keys[0], "moved").await;
    soon("a watch of another's commit", watch.changed()).await;
}

/// Everything that a store holds is shown, and nothing else. The store is this sentence's own, and empty.
pub async fn what_a_store_holds_is_shown(store: &dyn Walk) {
    let many = index("many");
    let mut expected = BTreeSet::new();
    let mut write = async |kind: Kind, id: &str, score: i64| {
        let (key, bytes) = (Key::new(kind, id), Bytes::from(vec![0xff; id.len()]));
        let entry = entry(score, id);
        let mut batch = Batch::default();
        batch.put(key.clone(), bytes.clone());
        batch.index(many.clone(), score, id);
        store.commit(batch).await.unwrap();
        expected.insert(format!("{:?}", Stored::Record(key, bytes)));
        expected.insert(format!("{:?}", Stored::Entry(many.clone(), entry)));
    };
    for number in 0..1500 {
        write(Kind::Event, &format!("e/{number}"), i64::from(number % 7)).await;
    }
    for odd in ["*", "[a]", "\\\n", "a/b:c ü", "{x}"] {
        write(Kind::Task, odd, i64::MIN).await;
    }
    let mut gone = Batch::default();
    gone.put(key("gone"), "x");
    gone.index(index("gone"), 1, "x");
    store.commit(gone.clone()).await.unwrap();
    let removed = Batch {
        delete: gone.put.into_iter().map(|(key, _)| key).collect(),
        unindex: gone.index.into_iter().map(|(index, entry)| (index, entry.member)).collect(),
        ..Batch::default()
    };
    store.commit(removed).await.unwrap();

    let (sender, mut pieces) = mpsc::channel::<Vec<Stored>>(1);
    let mut shown = BTreeSet::new();
    let reading = async {
        while let Some(piece) = pieces.recv().await {
            shown.extend(piece.iter().map(|stored| format!("{stored:?}")));
        }
    };
    let (walked, ()) = tokio::join!(store.walk(sender), reading);
    walked.unwrap();
    assert!(shown == expected, "{} were shown, {} are there", shown.len(), expected.len());
}

fn key(name: &str) -> Key {
    Key::new(Kind::Fact, fresh(name))
}

fn index(name: &str) -> Index {
    Index::new(format!("contract/{}", fresh(name)))
}

fn entry(score: i64, member: &str) -> Entry {
    Entry { score, member: member.to_owned() }
}

async fn put(store: &dyn Store, key: &Key, bytes: impl Into<Bytes>) {
    let mut batch = Batch::default();
    batch.put(key.clone(), bytes);
    store.commit(batch).await.unwrap();
}

async fn load(store: &dyn Store, key: &Key) -> Option<Record> {
    let mut found = store.load(std::slice::from_ref(key)).await.unwrap();
    assert_eq!(found.len(), 1);
    found.remove(0)
}

async fn members(store: &dyn Store, index: &Index, from: From) -> Vec<String> {
    let entries = store.range(index, from, 1_000).await.unwrap();
    entries.into_iter().map(|entry| entry.member).collect()
}

#[track_caller]
fn assert_conflict(result: Result<(), CommitError>, with: &Key) {
    match result {
        Err(CommitError::Conflict { key }) => assert_eq!(&key, with),
        Ok(()) | Err(CommitError::Store(_)) => panic!("{with} should conflict: {result:?}"),
    }
}
