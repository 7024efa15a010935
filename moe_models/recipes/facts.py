"""Train facts said in other ways: turned round, recombined, and put together per country.

A fact that stands in one train row can be asked for in another form on dev. Every restatement is made from train rows
alone, and none is let through whose question is a dev or test input of any task.
"""

import re
from collections.abc import Iterable

import numpy as np

from .corpus import Row, normalized_text

_ANALOGY = re.compile(r"^(.+?) is to (.+?) as (.+?) is to$")
_COUNTRY_FORMS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("capital", re.compile(r"^What is the capital of (?P<country>.+)\?$")),
    ("capital turned", re.compile(r"^(?P<value>.+) is the capital of which country\?$")),
    ("region", re.compile(r"^In which region of the world is (?P<country>.+)\?$")),
    ("internet domain", re.compile(r"^What is the internet domain of (?P<country>.+)\?$")),
    ("currency code", re.compile(r"^What is the currency code of (?P<country>.+)\?$")),
    ("people", re.compile(r"^What is a person from (?P<country>.+) called\?$")),
)
_COUNTRY_QUESTIONS = {
    "capital": "What is the capital of {}?",
    "region": "In which region of the world is {}?",
    "internet domain": "What is the internet domain of {}?",
    "currency code": "What is the currency code of {}?",
    "people": "What is a person from {} called?",
}


class Restater:
    """Draws restatements of train facts.

    Args:
        rows: the train rows.
        held_out: normalized dev and test inputs; a restatement that equals one is never returned.
    """

    def __init__(self, rows: Iterable[Row], *, held_out: frozenset[str]) -> None:
        rows = list(rows)
        self._held_out = held_out
        self._relations = _relations(rows)
        self._countries = _countries(rows)
        self._add_facts_from_analogies()
        self._names = sorted(self._countries)
        self._definitions = [row for row in rows if row.task == "wordnet_reverse"]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of restatement these rows allow."""
        kinds = []
        if self._relations:
            kinds.append("analogy")
        if self._countries:
            kinds.extend(["profile", "country question"])
        if self._definitions:
            kinds.append("definition")
        return tuple(kinds)

    def restatement(self, kind: str, *, random: np.random.Generator) -> Row | None:
        """Return one restatement of a kind, or None when the drawn one is a held-out input or says nothing."""
        row = {
            "analogy": self._analogy,
            "profile": self._profile,
            "country question": self._country_question,
            "definition": self._definition,
        }[kind](random)
        return None if row is None or normalized_text(row.input) in self._held_out else row

    def _analogy(self, random: np.random.Generator) -> Row | None:
        weights = np.array([len(pairs) for _, pairs in self._relations], dtype=float)
        task, pairs = self._relations[int(random.choice(len(weights), p=weights / weights.sum()))]
        (a, b), (c, d) = (pairs[int(n)] for n in random.integers(len(pairs), size=2))
        if a == c:
            return None
        turned = random.random() < 0.15 and sum(value == d for _, value in pairs) == 1
        if turned:
            return Row(task=task, input=f"{b} is to {a} as {d} is to", output=c)
        return Row(task=task, input=f"{a} is to {b} as {c} is to", output=d)

    def _profile(self, random: np.random.Generator) -> Row | None:
        name = self._names[int(random.integers(len(self._names)))]
        facts = list(self._countries[name].items())
        random.shuffle(facts)
        said = "; ".join(f"{relation}: {value}" for relation, value in facts)
        # No question of the corpus reads so: the profile brings one country's facts together, in any order.
        return Row(task="country_facts", input=f"Describe {name}.", output=said)

    def _country_question(self, random: np.random.Generator) -> Row | None:
        name = self._names[int(random.integers(len(self._names)))]
        relations = list(self._countries[name])
        relation = relations[int(random.integers(len(relations)))]
        value = self._countries[name][relation]
        if relation == "capital" and random.random() < 0.5:
            return Row(task="country_facts", input=f"{value} is the capital of which country?", output=name)
        if relation in ("internet domain", "people") and random.random() < 0.3:
            return Row(task="country_facts", input=f"Which country has the {relation} {value}?", output=name)
        return Row(task="country_facts", input=_COUNTRY_QUESTIONS[relation].format(name), output=value)

    def _definition(self, random: np.random.Generator) -> Row | None:
        row = self._definitions[int(random.integers(len(self._definitions)))]
        word_class, _, meaning = row.input.partition(": ")
        return Row(task="wordnet_reverse", input=f"Define the {word_class} {row.output}.", output=meaning)

    def _add_facts_from_analogies(self) -> None:
        """Take capitals and peoples over from the relations of the analogies that agree with what is known."""
        for task, pairs in self._relations:
            if task != "analogy_world":
                continue
            turned = [(value, name) for name, value in pairs]
            for relation, facts in (("capital", turned), ("people", pairs)):
                known = [self._countries[name].get(relation) for name, _ in facts if name in self._countries]
                agreeing = sum(self._countries.get(name, {}).get(relation) == value for name, value in facts)
                if agreeing > 10 and agreeing > (len(known) - known.count(None)) / 2:
                    for name, value in facts:
                        self._countries.setdefault(name, {}).setdefault(relation, value)


def _relations(rows: list[Row]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the pairs of each relation: two pairs that one analogy sets side by side are of one relation."""
    found = []
    for task in ("analogy_world", "analogy_morphology"):
        parent: dict[tuple[str, str], tuple[str, str]] = {}

        def root(pair: tuple[str, str], parent: dict = parent) -> tuple[str, str]:
            while parent.setdefault(pair, pair) != pair:
                pair = parent[pair]
            return pair

        for row in rows:
            match = _ANALOGY.match(row.input) if row.task == task else None
            if match:
                parent[root((match[1], match[2]))] = root((match[3], row.output))
        relations: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for pair in sorted(parent):
            relations.setdefault(root(pair), []).append(pair)
        found.extend((task, pairs) for pairs in relations.values() if len(pairs) > 2)
    return found


def _countries(rows: list[Row]) -> dict[str, dict[str, str]]:
    """Return what the train rows say of each country, by country and relation."""
    countries: dict[str, dict[str, str]] = {}
    for row in rows:
        if row.task != "country_facts":
            continue
        for relation, form in _COUNTRY_FORMS:
            match = form.match(row.input)
            if match and relation == "capital turned":
                countries.setdefault(row.output, {})["capital"] = match["value"]
            elif match:
                countries.setdefault(match["country"], {})[relation] = row.output
    return countries
