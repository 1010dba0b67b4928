"""What is under way to the far end of a tunnel, by its worker."""

from __future__ import annotations

from kecs.kube.uploads import MOST_ASKED, PROBE, STUCK, WINDOW, WORKERS, Uploads


def opened(*streams: int) -> Uploads:
    uploads = Uploads()
    for stream in streams:
        uploads.opened(stream - 2, stream)
    for ping in ask(uploads, 1001):  # the openings were seen
        uploads.pong(ping)
    return uploads


def ask(uploads: Uploads, first: int, now: float = 0.0) -> list[int]:
    """Send a round of PINGs."""
    pings = [first + 2 * number for number in range(WORKERS)]
    for ping in pings:
        uploads.asked(ping, now)
    return pings


def test_a_worker_that_takes_nothing_gets_no_more_than_its_window():
    uploads = opened(3, 7)
    for _ in range(WINDOW):
        assert uploads.has_room(3)
        uploads.sent(3)

    assert not uploads.has_room(3)
    assert not uploads.has_room(13), "the same worker"
    assert uploads.has_room(7), "another one"


def test_an_answer_shows_that_all_before_its_question_was_taken():
    uploads = opened(3, 13)
    for _ in range(WINDOW - 1):
        uploads.sent(3)
    uploads.sent(13)
    uploads.answered(13)

    assert uploads.has_room(3)
    assert uploads.quiet


def test_an_answer_shows_nothing_of_what_came_after_its_question():
    uploads = opened(3, 13)
    uploads.sent(13)
    for _ in range(WINDOW):
        uploads.sent(3)
    uploads.answered(13)

    assert not uploads.has_room(3)


def test_it_is_asked_when_much_is_under_way_and_a_worker_s_pong_answers_for_it_alone():
    uploads = opened(3, 7)
    for _ in range(PROBE - 1):
        uploads.sent(3)
    assert not uploads.due()
    uploads.sent(3)
    uploads.sent(7)
    assert uploads.due()
    pings = ask(uploads, 1)
    assert not uploads.due()
    for ping in pings:
        if ping != pings[3 % WORKERS]:
            uploads.pong(ping)

    assert uploads.stuck(STUCK, STUCK) == {3 % WORKERS}
    assert not uploads.quiet
    uploads.pong(pings[3 % WORKERS])
    assert uploads.quiet
    assert not uploads.asking


def test_what_a_stream_left_behind_makes_its_worker_suspect_until_it_was_taken():
    uploads = opened(3)
    uploads.sent(3)
    uploads.over(3, given_up=True)

    assert uploads.suspects() == {3}
    assert uploads.due()
    for ping in ask(uploads, 1):
        uploads.pong(ping)
    assert uploads.suspects() == set()


def test_what_was_answered_leaves_nothing_behind():
    uploads = opened(3)
    uploads.sent(3)
    uploads.answered(3)
    uploads.over(3, given_up=True)

    assert uploads.suspects() == set()
    assert not uploads.due()


def test_new_streams_are_better_off_where_few_are_and_nothing_is_doubtful():
    uploads = opened(3, 8)
    uploads.sent(3)
    uploads.over(3, given_up=True)

    assert uploads.cost(5, 7) < uploads.cost(1, 3), "3 may never go on"
    assert uploads.cost(5, 7) < uploads.cost(13, 15), "nor may 13, by which it would be opened"
    assert opened(7).cost(9, 11) < opened(7).cost(5, 7)


def test_a_worker_that_stands_still_is_not_asked_for_ever_and_the_others_are_trusted():
    uploads = opened(3, 7)
    for _ in range(WINDOW):
        uploads.sent(3)
    for number in range(MOST_ASKED):
        for _ in range(PROBE):
            uploads.sent(7)
        assert uploads.due()
        for worker, ping in enumerate(ask(uploads, 1 + 2 * WORKERS * number)):
            if worker != 3:
                uploads.pong(ping)
    for _ in range(WINDOW):
        uploads.sent(7)

    assert uploads.exhausted
    assert not uploads.due()
    assert uploads.has_room(7)
    assert not uploads.has_room(3)


def test_what_the_far_end_gave_up_is_never_taken_and_what_we_gave_up_perhaps():
    uploads = opened(3, 7)
    for stream, given_up in ((3, True), (7, False)):
        uploads.sent(stream)
        uploads.over(stream, given_up=given_up)

    assert uploads.suspects() == {3, 2}
    assert uploads.suspects(certain=True) == {3}


def test_a_stream_whose_opening_waits_behind_that_has_not_begun():
    uploads = opened(3)
    uploads.sent(3)
    uploads.opened(11, 13)
    uploads.opened(13, 15)
    uploads.opened(5, 7)

    assert uploads.has_not_begun(13, {3}), "its worker is the one that waits"
    assert uploads.has_not_begun(15, {3}), "its error stream's worker is"
    assert not uploads.has_not_begun(7, {3})
    uploads.answered(13)
    assert not uploads.has_not_begun(13, {3})
