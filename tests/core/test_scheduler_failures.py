"""Scheduler: a failure ends whom it belongs to, and nothing that failed is read again."""

from quire.request import FinishReason, RequestStatus
from scheduling import chunks, make_request, make_scheduler, result_of, step


def test_a_request_that_failed_ends_alone() -> None:
    bad, good = make_request("bad"), make_request("good")
    scheduler = make_scheduler(bad, good)
    plan = scheduler.schedule()
    reports = scheduler.update(plan, result_of(plan, failed={"bad": "not a number"}))
    scheduler.check()
    assert [(report.request_id, report.error) for report in reports] == [
        ("good", None),
        ("bad", "not a number"),
    ]
    assert bad.finish_reason is FinishReason.ERROR
    assert step(scheduler)[0] == [("good", 4, 1)]


def test_nothing_of_a_failed_request_is_matched_again() -> None:
    prompt = list(range(10))
    scheduler = make_scheduler(make_request("bad", prompt))
    plan = scheduler.schedule()
    scheduler.update(plan, result_of(plan, failed={"bad": "not a number"}))
    scheduler.add(make_request("next", prompt))
    assert step(scheduler)[0] == [("next", 0, 10)]


def test_blocks_of_a_request_that_failed_after_it_was_aborted_are_not_matched_either() -> None:
    prompt = list(range(10))
    scheduler = make_scheduler(make_request("bad", prompt))
    plan = scheduler.schedule()
    scheduler.finish("bad", FinishReason.ABORT)
    assert scheduler.update(plan, result_of(plan, failed={"bad": "not a number"})) == []
    scheduler.add(make_request("next", prompt))
    assert step(scheduler)[0] == [("next", 0, 10)]


def test_a_sharer_that_has_not_sampled_is_computed_anew() -> None:
    prompt = list(range(10))
    bad, sharer = make_request("bad", prompt), make_request("sharer", [*prompt, *range(20)])
    scheduler = make_scheduler(bad, sharer, budget=16)
    plan = scheduler.schedule()
    assert chunks(plan) == [("bad", 0, 10), ("sharer", 8, 6)]
    scheduler.update(plan, result_of(plan, failed={"bad": "not a number"}))
    scheduler.check()
    assert step(scheduler)[0] == [("sharer", 0, 16)]


def test_a_sharer_that_has_sampled_goes_on() -> None:
    prompt = list(range(10))
    scheduler = make_scheduler(make_request("bad", prompt), make_request("good", prompt))
    plan = scheduler.schedule()
    scheduler.update(plan, result_of(plan, failed={"bad": "not a number"}))
    assert step(scheduler)[0] == [("good", 10, 1)]


def test_sharers_that_failed_too_all_end() -> None:
    prompt = list(range(10))
    requests = [make_request(id, prompt) for id in "abc"]
    scheduler = make_scheduler(*requests)
    plan = scheduler.schedule()
    reports = scheduler.update(plan, result_of(plan, failed=dict.fromkeys("abc", "bad")))
    assert [report.finish_reason for report in reports] == [FinishReason.ERROR] * 3
    scheduler.check()
    assert scheduler.kv.usage == 0
    assert scheduler.kv.num_cached_blocks == 0


def test_a_step_of_one_that_raised_ends_its_request() -> None:
    request = make_request("a", 10)
    scheduler = make_scheduler(request)
    plan = scheduler.schedule()
    [report] = scheduler.fail(plan, "kernel exploded")
    assert (report.finish_reason, report.error) == (FinishReason.ERROR, "kernel exploded")
    assert not scheduler.has_work
    assert scheduler.kv.num_cached_blocks == 0
    assert scheduler.schedule().released == ("a",)


def test_after_a_step_of_several_raised_each_runs_alone_and_in_order() -> None:
    scheduler = make_scheduler(*(make_request(id) for id in "abc"))
    plan = scheduler.schedule()
    assert scheduler.fail(plan, "who was it?") == []
    scheduler.check()
    scheduler.add(make_request("late"))
    assert [step(scheduler)[0] for _ in range(3)] == [
        [("a", 0, 4)],
        [("b", 0, 4)],
        [("c", 0, 4)],
    ]
    assert step(scheduler)[0] == [("a", 4, 1), ("b", 4, 1), ("c", 4, 1), ("late", 0, 4)]


def test_the_culprit_ends_and_the_others_finish() -> None:
    requests = {id: make_request(id, max_tokens=3) for id in "abc"}
    scheduler = make_scheduler(*requests.values())
    while scheduler.has_work:
        plan = scheduler.schedule()
        if any(chunk.request_id == "b" for chunk in plan.chunks):
            scheduler.fail(plan, "b is bad")
        else:
            scheduler.update(plan, result_of(plan))
        scheduler.check()
    assert {id: str(request.finish_reason) for id, request in requests.items()} == {
        "a": "length",
        "b": "error",
        "c": "length",
    }
    assert requests["a"].num_output_tokens == 3


def test_a_culprit_deep_in_its_prompt_is_found_without_a_prefix_cache() -> None:
    """One good step alone does not clear a suspect: it must pass the point where it failed."""
    bad, good = make_request("bad", 12), make_request("good", 2)
    scheduler = make_scheduler(good, bad, budget=5, prefix_caching=False)
    for _ in range(60):
        plan = scheduler.schedule()
        if any(c.request_id == "bad" and c.start + c.length > 9 for c in plan.chunks):
            scheduler.fail(plan, "the tenth token is bad")
        else:
            scheduler.update(plan, result_of(plan))
        scheduler.check()
    assert bad.finish_reason is FinishReason.ERROR
    assert good.num_output_tokens > 20


def test_what_a_failed_step_published_is_not_matched() -> None:
    prompt = list(range(8))
    scheduler = make_scheduler(make_request("a", [*prompt, 1]), make_request("b", [*prompt, 2]))
    plan = scheduler.schedule()
    assert chunks(plan) == [("a", 0, 9), ("b", 8, 1)]
    scheduler.fail(plan, "nothing was written")
    assert step(scheduler)[0] == [("a", 0, 9)]
    assert step(scheduler)[0] == [("b", 8, 1)]


def test_a_suspect_gets_its_blocks_from_whoever_holds_them() -> None:
    first, second = make_request("a", 4), make_request("b", 4)
    scheduler = make_scheduler(first, second, num_blocks=4, prefix_caching=False)
    for _ in range(4):
        step(scheduler)
    scheduler.fail(scheduler.schedule(), "who was it?")
    assert step(scheduler)[0] == [("a", 0, 8)]
    assert step(scheduler)[0] == [("b", 0, 8)]
    assert step(scheduler)[0] == [("a", 8, 1)]
    assert second.status is RequestStatus.WAITING


def test_an_aborted_suspect_is_waited_for_no_longer() -> None:
    scheduler = make_scheduler(*(make_request(id) for id in "abc"))
    scheduler.fail(scheduler.schedule(), "who was it?")
    scheduler.finish("a", FinishReason.ABORT)
    scheduler.finish("b", FinishReason.ABORT)
    assert step(scheduler)[0] == [("c", 0, 4)]
    assert not scheduler._suspects


def test_a_failed_step_repeats_what_it_was_to_release() -> None:
    scheduler = make_scheduler(make_request("gone"), make_request("a"))
    step(scheduler)
    scheduler.finish("gone", FinishReason.ABORT)
    plan = scheduler.schedule()
    assert plan.released == ("gone",)
    scheduler.fail(plan, "before the runner looked at it")
    assert scheduler.schedule().released == ("gone", "a")
