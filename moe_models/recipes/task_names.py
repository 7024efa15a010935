"""Other names that tasks of the corpus go by: the sample tasks are of their form, under names of their own."""

ALIASES = {
    "span_qa_encyclopedia": "squad_dev",
    "span_qa_reviews": "squadshifts_amazon",
    "entities_news": "wikigold_ner",
    "entities_social": "wnut17_ner",
    "restaurant_slots": "restaurant8k_slot",
    "movie_sentiment": "movie_sentence_polarity",
    "movie_subjectivity": "subjectivity",
    "banking_requests": "banking77",
    "encyclopedia_class": "dbpedia14",
    "definition_to_word": "wordnet_reverse",
    "trivia_choice": "opentrivia",
    "word_problems": "svamp",
}
"""From a sample task to the task whose rows it is like."""
