"""What a browser sends that is a page behind."""

from __future__ import annotations


def test_a_prompt_that_the_list_no_longer_names_was_chosen_by_nobody(open_app):
    page = open_app("tokens", {"run": "even", "focus": "facts-002"})
    # A browser that went a step back can still send what the list of the page before called a prompt.
    box = page.selectbox(key="prompt")
    box.options.append("facts-099 · of another list")
    box.set_value("facts-099 · of another list").run()
    assert not page.exception
    assert "facts-002" in str(page.query_params["focus"])
