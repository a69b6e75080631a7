//! Commits.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::join_all;

use super::fixtures::{append, fill, set_head};
use super::{Counters, Heads, Log, Mailbox, Outcome, Owned, Stamp, Stamps};
use crate::{
    Batch, BatchId, Check, CommitError, Durability, Hole, Op, Order, Owner, Pos, RawKey, Store, View, raw_key,
};

const ANNA: Owned = Owned::new(3, 1);
const BELA: Owned = Owned::new(9, 1);

fn is_conflict<T: std::fmt::Debug>(result: Result<T, CommitError>) -> bool {
    match result {
        Err(CommitError::Conflict(_)) => true,
        Ok(_) => false,
        Err(other) => panic!("neither done nor a conflict: {other}"),
    }
}

/// A batch whose condition does not hold leaves no trace.
///
/// # Errors
/// If it was upset.
pub async fn a_batch_happens_as_a_whole_or_not_at_all(store: Arc<dyn Store>) -> Outcome {
    store.commit(set_head(ANNA, None, "one")).await?;
    let mut refused = set_head(ANNA, None, "two");
    append(&mut refused, ANNA, "never");
    refused.put_elsewhere::<Mailbox>(&(BELA, "m".into()), &"never".into());
    let before = store.frontier();
    assert!(is_conflict(store.commit(refused).await));
    assert_eq!(store.frontier(), before, "a refused batch takes no positions");
    let view = View::latest(&*store).await?;
    assert_eq!(view.get::<Heads>(&(ANNA,)).await?, Some("one".into()));
    assert_eq!(view.page::<Log, _>(&(ANNA,), Order::Ascending, 9).await?, []);
    assert_eq!(view.get::<Mailbox>(&(BELA, "m".into())).await?, None);
    assert_eq!(store.tail(ANNA.lane(), Pos::ZERO, 9).await?, []);
    Ok(())
}

/// Batches queued one right after the other, each planned on the result of the one before: this is
/// how a room runs ahead of the disk.
///
/// # Errors
/// If it was upset.
pub async fn a_check_sees_the_batches_before_it(store: Arc<dyn Store>) -> Outcome {
    let queued = [
        store.commit(set_head(ANNA, None, "1")),
        store.commit(set_head(ANNA, Some("1"), "2")),
        store.commit(set_head(ANNA, Some("1"), "lost")),
        store.commit(set_head(ANNA, Some("2"), "3")),
        store.commit(set_head(ANNA, None, "lost")),
    ];
    let mut answers = join_all(queued).await;
    assert!(is_conflict(answers.remove(4)));
    assert!(is_conflict(answers.remove(2)));
    for answer in answers {
        answer?;
    }
    let view = View::latest(&*store).await?;
    assert_eq!(view.get::<Heads>(&(ANNA,)).await?, Some("3".into()));
    Ok(())
}

/// # Errors
/// If it was upset.
pub async fn a_check_sees_deletions_before_it(store: Arc<dyn Store>) -> Outcome {
    store.commit(set_head(ANNA, None, "old")).await?;
    let mut delete = Batch::new(ANNA.lane());
    delete.delete::<Heads>(&(ANNA,));
    let mut ranges = Batch::new(ANNA.lane());
    ranges.delete_prefix::<Heads, _>(&(ANNA,));
    let queued = [
        store.commit(delete),
        store.commit(set_head(ANNA, Some("old"), "lost")),
        store.commit(set_head(ANNA, None, "new")),
        store.commit(ranges),
        store.commit(set_head(ANNA, Some("new"), "lost")),
        store.commit(set_head(ANNA, None, "newest")),
    ];
    let answers = join_all(queued).await;
    for (index, answer) in answers.into_iter().enumerate() {
        if matches!(index, 1 | 4) {
            assert!(is_conflict(answer), "batch {index} must conflict");
        } else {
            answer?;
        }
    }
    let view = View::latest(&*store).await?;
    assert_eq!(view.get::<Heads>(&(ANNA,)).await?, Some("newest".into()));
    Ok(())
}

/// Sixteen tasks each add one to a number by read, check and write, until they succeed.
///
/// # Errors
/// If it was upset.
pub async fn of_many_writers_of_one_row_one_wins_at_a_time(store: Arc<dyn Store>) -> Outcome {
    store.commit(set_head(ANNA, None, "0")).await?;
    let add_one = |store: Arc<dyn Store>| async move {
        loop {
            let Ok(old) = View::latest(&*store).await?.get::<Heads>(&(ANNA,)).await else { continue };
            let old = old.expect("the row exists");
            let next = (old.parse::<u32>().expect("a number") + 1).to_string();
            match store.commit(set_head(ANNA, Some(&old), &next)).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict(_)) => tokio::task::yield_now().await,
                Err(other) => return Err(super::Upset::from(other)),
            }
        }
    };
    let tasks = (0..16).map(|_| tokio::spawn(add_one(Arc::clone(&store))));
    for done in join_all(tasks).await {
        done.expect("no task panics")?;
    }
    let total = View::latest(&*store).await?.get::<Heads>(&(ANNA,)).await?;
    assert_eq!(total, Some("16".into()), "an increment was lost or doubled");
    Ok(())
}

/// # Errors
/// If it was upset.
pub async fn positions_are_in_commit_order_without_gaps(store: Arc<dyn Store>) -> Outcome {
    let start = store.frontier().base();
    let mut queued = Vec::new();
    for number in 0..40_u32 {
        let owner = if number % 2 == 0 { ANNA } else { BELA };
        let mut batch = Batch::new(owner.lane());
        for _ in 0..number % 4 {
            append(&mut batch, owner, "row");
        }
        queued.push(store.commit(batch));
    }
    let mut next = start.next();
    for answer in join_all(queued).await {
        let committed = answer?;
        assert_eq!(committed.first, next);
        next = Pos::new(next.get() + u64::from(committed.count));
    }
    assert_eq!(store.frontier().base().next(), next);
    Ok(())
}

/// # Errors
/// If it was upset.
pub async fn positions_are_filled_into_keys_and_values(store: Arc<dyn Store>) -> Outcome {
    fill(&*store, BELA, 3).await?;
    let mut batch = Batch::new(ANNA.lane());
    let (first, second) = (batch.next_pos(), batch.next_pos());
    batch.put::<Log>(&(ANNA, second), &"second".into());
    batch.put::<Stamps>(&(ANNA, 1), &Stamp(first));
    batch.put::<Stamps>(&(ANNA, 2), &Stamp(second));
    let committed = store.commit(batch).await?;
    let (first, second) = (committed.resolve(first), committed.resolve(second));
    assert_eq!((committed.count, second), (2, first.next()));
    let view = View::latest(&*store).await?;
    let rows = view.page::<Log, _>(&(ANNA,), Order::Ascending, 9).await?;
    assert_eq!(rows, [((ANNA, second), "second".into())]);
    assert_eq!(view.get::<Stamps>(&(ANNA, 1)).await?, Some(Stamp(first)));
    // A value that was stamped can be the condition of the next batch, also within one group.
    let mut checked = Batch::new(ANNA.lane());
    checked.check::<Stamps>(&(ANNA, 1), Some(&Stamp(first)));
    checked.put::<Heads>(&(ANNA,), &"seen".into());
    store.commit(checked).await?;
    Ok(())
}

/// # Errors
/// If it was upset.
pub async fn the_outbox_reaches_other_lanes(store: Arc<dyn Store>) -> Outcome {
    let mut batch = Batch::new(ANNA.lane());
    let pos = append(&mut batch, ANNA, "row");
    batch.put_elsewhere::<Mailbox>(&(BELA, "kept".into()), &"hello".into());
    batch.put_elsewhere::<Mailbox>(&(BELA, "gone".into()), &"hello".into());
    batch.put_elsewhere::<Stamps>(&(BELA, 7), &Stamp(pos));
    let committed = store.commit(batch).await?;
    let mut delete = Batch::new(ANNA.lane());
    delete.delete_elsewhere::<Mailbox>(&(BELA, "gone".into()));
    store.commit(delete).await?;
    let view = View::latest(&*store).await?;
    assert_eq!(view.get::<Mailbox>(&(BELA, "kept".into())).await?, Some("hello".into()));
    assert_eq!(view.get::<Mailbox>(&(BELA, "gone".into())).await?, None);
    assert_eq!(view.get::<Stamps>(&(BELA, 7)).await?, Some(Stamp(committed.resolve(pos))));
    // A check of the other lane sees it too, when it is in the same group.
    let mut outbox = Batch::new(ANNA.lane());
    outbox.put_elsewhere::<Heads>(&(BELA,), &"from outside".into());
    let queued = [store.commit(outbox), store.commit(set_head(BELA, Some("from outside"), "known"))];
    for answer in join_all(queued).await {
        answer?;
    }
    Ok(())
}

/// # Errors
/// If it was upset.
pub async fn counters_add_up(store: Arc<dyn Store>) -> Outcome {
    let key = raw_key::<Counters>(&(ANNA,)).0;
    let mut queued = Vec::new();
    for by in [5, -2, i64::MAX, 1, -10] {
        let mut batch = Batch::new(ANNA.lane());
        batch.ops.push(Op::Add { key: key.clone(), by });
        queued.push(store.commit(batch));
    }
    for answer in join_all(queued).await {
        answer?;
    }
    let sum = View::latest(&*store).await?.get::<Counters>(&(ANNA,)).await?;
    assert_eq!(sum.map(|counter| counter.0), Some(i64::MAX - 10), "held at the end of the range, then less");
    Ok(())
}

/// # Errors
/// If it was upset.
pub async fn repeating_a_batch_finds_the_first_answer(store: Arc<dyn Store>) -> Outcome {
    let mut batch = set_head(ANNA, None, "once");
    batch.id = Some(BatchId(*b"sixteen bytes id"));
    append(&mut batch, ANNA, "once");
    let queued = [store.commit(batch.clone()), store.commit(batch.clone())];
    let mut answers = join_all(queued).await.into_iter();
    let first = answers.next().expect("two answers")?;
    assert_eq!(answers.next().expect("two answers")?, first, "repeated within a group");
    assert_eq!(store.commit(batch).await?, first, "repeated later");
    assert_eq!(store.tail(ANNA.lane(), Pos::ZERO, 9).await?.len(), 1, "it happened once");
    Ok(())
}

/// # Errors
/// If it was upset.
pub async fn what_is_too_large_is_refused(store: Arc<dyn Store>) -> Outcome {
    let limits = store.limits();
    let mut value = Batch::new(ANNA.lane());
    value.put::<Heads>(&(ANNA,), &"x".repeat(limits.value_bytes + 1));
    assert!(matches!(store.commit(value).await, Err(CommitError::TooLarge { .. })));
    let mut batch = Batch::new(ANNA.lane());
    let row = "x".repeat(limits.value_bytes - 100);
    for number in 0..=limits.batch_bytes / row.len() {
        batch.put::<Mailbox>(&(ANNA, number.to_string()), &row);
    }
    assert!(matches!(store.commit(batch).await, Err(CommitError::TooLarge { .. })));
    let mut largest = Batch::new(ANNA.lane());
    largest.put::<Heads>(&(ANNA,), &row);
    store.commit(largest).await?;
    Ok(())
}

fn panics(store: &dyn Store, batch: Batch) -> bool {
    // The future is dropped: the refusal is in the call itself.
    catch_unwind(AssertUnwindSafe(|| drop(store.commit(batch)))).is_err()
}

/// # Errors
/// If it was upset.
pub async fn batches_of_two_lanes_are_refused(store: Arc<dyn Store>) -> Outcome {
    let mut op = Batch::new(ANNA.lane());
    op.ops.push(Op::Delete { key: raw_key::<Heads>(&(BELA,)).0 });
    assert!(panics(&*store, op), "an op in another lane");
    let mut check = Batch::new(ANNA.lane());
    check.checks.push(Check::Absent(raw_key::<Heads>(&(BELA,)).0));
    assert!(panics(&*store, check), "a check in another lane");
    store.commit(set_head(ANNA, None, "fine")).await?;
    Ok(())
}

/// # Errors
/// If it was upset.
pub async fn malformed_batches_are_refused(store: Arc<dyn Store>) -> Outcome {
    let mut foreign = Batch::new(ANNA.lane());
    foreign.put::<Log>(&(ANNA, Pos::pending(0)), &"a position that was never taken".into());
    assert!(panics(&*store, foreign), "a hole without a slot");
    let mut outside = Batch::new(ANNA.lane());
    let hole = Hole { offset: u32::MAX - 8, slot: 0 };
    let key = raw_key::<Heads>(&(ANNA,)).0;
    outside.next_pos();
    outside.ops.push(Op::Put { key, key_holes: vec![hole], value: Vec::new(), value_holes: Vec::new() });
    assert!(panics(&*store, outside), "a hole outside its key");
    let mut relaxed = Batch::new(ANNA.lane());
    append(&mut relaxed, ANNA, "told before it is durable");
    relaxed.durability = Durability::Relaxed;
    assert!(panics(&*store, relaxed), "facts of a relaxed batch");
    let mut range = Batch::new(ANNA.lane());
    let (start, end) = (raw_key::<Heads>(&(ANNA,)).0, RawKey(vec![ANNA.lane().number() + 1]));
    range.ops.push(Op::DeleteRange { start, end });
    assert!(panics(&*store, range), "a range over keyspaces");
    store.commit(set_head(ANNA, None, "fine")).await?;
    Ok(())
}

/// # Errors
/// If it was upset.
pub async fn relaxed_commits_are_seen_at_once(store: Arc<dyn Store>) -> Outcome {
    let mut relaxed = set_head(ANNA, None, "derived");
    relaxed.durability = Durability::Relaxed;
    store.commit(relaxed).await?;
    let view = View::latest(&*store).await?;
    assert_eq!(view.get::<Heads>(&(ANNA,)).await?, Some("derived".into()));
    Ok(())
}

/// # Errors
/// If it was upset.
pub async fn dropping_the_answer_does_not_take_the_batch_back(store: Arc<dyn Store>) -> Outcome {
    drop(store.commit(set_head(ANNA, None, "kept")));
    // An unlucky engine may have refused the dropped one; asking for both ends says so.
    let second = store.commit(set_head(ANNA, Some("kept"), "and built upon")).boxed();
    second.await?;
    Ok(())
}
