"""Lists whose choices change under the reader: what a browser names is one of those on the page, or nobody's choice."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest


def page() -> None:
    import streamlit as st

    from app import choices

    told = st.session_state.setdefault("told", [])
    names = {1: "Monday", 2: "Tuesday", 3: "Tuesday"} if st.session_state.get("alike") else {1: "Monday", 2: "Tuesday"}
    choices.choose_one("One", list(names), key="one", chosen=2, on_change=told.append, shown=names.__getitem__)
    choices.choose("Day", list(names), name="day", text="d{}".format, shown=names.__getitem__, kind="select")
    letters = list("abc")
    choices.choose_several("Letters", letters, key="letters", chosen=["b"], on_change=told.append)
    choices.choose("Letter", letters, name="letter")


def opened(**state: object) -> AppTest:
    test = AppTest.from_function(page, default_timeout=60)
    for name, value in state.items():
        test.session_state[name] = value
    return test.run()


def pick_what_is_no_longer_there(test: AppTest, key: str) -> AppTest:
    """What a browser sends that is a page behind: the label of a choice of the list before."""
    box = test.selectbox(key=key)
    box.options.append("Someday")
    return box.set_value("Someday").run()


def test_one_of_a_long_list_is_told_to_the_caller():
    assert opened().selectbox(key="one").set_value(1).run().session_state["told"] == [1]


def test_a_label_of_the_list_before_is_told_to_nobody():
    test = pick_what_is_no_longer_there(opened(), "one")
    assert not test.exception
    assert test.session_state["told"] == []
    assert test.selectbox(key="one").value == 2


def test_a_label_of_the_list_before_does_not_get_into_the_url():
    test = pick_what_is_no_longer_there(opened(), "choice_day")
    assert not test.exception
    assert not test.query_params
    assert test.selectbox(key="choice_day").value == 1


def test_buttons_that_are_no_longer_there_are_left_out():
    test = opened()
    for group, value in zip(test.button_group, (["b", "z"], ["z"]), strict=True):
        group.options.append("z")
        group.set_value(value)
    test.run()
    assert not test.exception
    assert not test.query_params
    assert test.session_state["told"] == []


def test_of_two_choices_of_one_name_the_one_that_is_chosen_stays():
    test = opened(alike=True)
    test.selectbox(key="choice_day").set_value(1).run()
    assert test.session_state["told"] == []
