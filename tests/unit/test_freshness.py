"""When a watched file is read again."""

from pool.core.editions import RETRY_S, SETTLE_S, Freshness, Stamp

OLD, NEW, NEWER = (Stamp(1, inode, 100, 5) for inode in (1, 2, 3))


def read(stamp=OLD):
    fresh = Freshness()
    assert fresh.look(stamp, 0.0)
    fresh.read(stamp)
    return fresh


def test_a_file_is_read_at_the_first_look_and_not_again_while_it_is_the_same():
    fresh = read()
    assert not any(fresh.look(OLD, at) for at in range(1, 1000))


def test_a_change_is_read_once_it_has_come_to_rest():
    fresh = read()
    assert not fresh.look(NEW, 10.0)
    assert not fresh.look(NEW, 10.0 + SETTLE_S - 0.1)
    assert fresh.look(NEW, 10.0 + SETTLE_S)
    fresh.read(NEW)
    assert not fresh.look(NEW, 100.0)


def test_while_it_keeps_changing_it_is_left_alone():
    fresh = read()
    growing = [Stamp(1, 1, size, size) for size in range(200, 240)]
    assert not any(fresh.look(stamp, 10.0 + at) for at, stamp in enumerate(growing))
    assert fresh.look(growing[-1], 49.0 + SETTLE_S)


def test_any_part_of_a_stamp_is_a_change():
    for at in range(4):
        changed = Stamp(*(value + (place == at) for place, value in enumerate(OLD)))
        fresh = read()
        fresh.look(changed, 1.0)
        assert fresh.look(changed, 1.0 + SETTLE_S)


def test_what_could_not_be_read_is_tried_again_after_a_while():
    fresh = read()
    fresh.look(NEW, 10.0)
    assert fresh.look(NEW, 12.0)
    fresh.failed(12.0)
    assert not fresh.look(NEW, 12.0 + RETRY_S - 1)
    assert fresh.look(NEW, 12.0 + RETRY_S)


def test_a_change_after_a_failure_is_read_when_it_rests_and_not_later():
    fresh = read()
    fresh.look(NEW, 10.0)
    fresh.failed(12.0)
    fresh.look(NEWER, 13.0)
    assert fresh.look(NEWER, 13.0 + SETTLE_S)


def test_a_file_that_is_gone_is_told_from_when_on_and_read_when_it_is_back_as_another():
    fresh = read()
    assert not fresh.look(None, 5.0)
    assert not fresh.look(None, 6.0)
    assert fresh.gone_since == 5.0
    assert not fresh.look(NEW, 7.0)
    assert fresh.gone_since is None
    assert fresh.look(NEW, 7.0 + SETTLE_S)


def test_a_file_that_comes_back_as_it_was_need_not_be_read():
    fresh = read()
    fresh.look(None, 5.0)
    assert not any(fresh.look(OLD, at) for at in range(6, 20))


def test_a_file_that_was_not_there_at_first_is_read_as_soon_as_it_is():
    fresh = Freshness()
    assert not fresh.look(None, 0.0)
    assert fresh.look(OLD, 1.0)
