//! Every model, and models of wrong protocols, which must fail: else the rest proves nothing.

use loom::model::Builder;
use partisan_loom::connection::{models, sync};

fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(model);
}

#[test]
fn nothing_is_left_unsent_by_the_io_thread() {
    check(4, || models::nothing_is_left_unsent(false, 2, 1));
}

#[test]
fn nothing_is_left_unsent_with_direct_writes() {
    check(4, || models::nothing_is_left_unsent(true, 2, 1));
}

#[test]
fn nothing_is_left_unsent_by_one_sender() {
    check(4, || models::nothing_is_left_unsent(true, 1, 2));
}

#[test]
fn whoever_finds_the_desk_taken_is_called() {
    check(4, models::whoever_finds_the_desk_taken_is_called);
}

#[test]
fn no_waiter_is_forgotten() {
    for direct in [false, true] {
        check(4, move || {
            models::no_waiter_is_forgotten(direct, 1, u64::MAX)
        });
        check(4, move || {
            models::no_waiter_is_forgotten(direct, u64::MAX, 1)
        });
    }
}

#[test]
fn an_end_is_noticed() {
    check(4, || models::an_end_is_noticed(true));
    check(4, || models::an_end_is_noticed(false));
}

#[test]
fn a_closed_socket_is_given_up() {
    check(4, models::a_closed_socket_is_given_up);
}

#[test]
fn a_paused_connection_is_resumed() {
    check(4, models::a_paused_connection_is_resumed);
}

#[test]
fn nothing_handed_over_means_delivered() {
    check(4, models::nothing_handed_over_means_delivered);
}

#[test]
#[should_panic = "left in the queue"]
fn wrong_acknowledging_late() {
    check(3, models::acknowledging_late_leaves_something_unsent);
}

#[test]
#[should_panic = "something is left"]
fn wrong_no_fence_and_nobody_is_called() {
    sync::NO_FENCES.set(true);
    check(4, models::whoever_finds_the_desk_taken_is_called);
}

#[test]
#[should_panic = "the outbox has the socket still"]
fn wrong_no_fence_and_the_socket_is_kept() {
    sync::NO_FENCES.set(true);
    check(4, models::a_closed_socket_is_given_up);
}
