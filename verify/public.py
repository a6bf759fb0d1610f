"""The vectors themselves: facts of public tests and pages with their pictures, and recordings of what comes along."""

from typing import Any

from verify.vectors import AnswerVector, CaptionVector, GreedyTokensVector, MatchVector, RankVector, Vector

PICTURES = {
    "merlion.png": "https://raw.githubusercontent.com/salesforce/LAVIS/main/docs/_static/merlion.png",
    "demo.jpg": "https://storage.googleapis.com/sfr-vision-language-research/BLIP/demo.jpg",
    "black_heart.jpg": "demo/pictures/black_heart.jpg",
    "yellow_moon_and_orange_star.jpg": "demo/pictures/yellow_moon_and_orange_star.jpg",
}
"""name of a picture -> where it is: an address, or a path in this repository."""

_LAVIS = "a test of LAVIS"
_CONVERTER = "the check in the converter of `transformers`"
_DEMONSTRATION = "the demonstration of 2022"
_RECORDED = "recorded when this code came with the file"
_CITIES = ("Singapore", "London", "Palo Alto", "Tokyo")

VECTORS: tuple[Vector[Any], ...] = (
    MatchVector(
        checkpoint="model_base_retrieval_coco",
        picture="merlion.png",
        image_size=384,
        text="merlion in singapore",
        match=0.98613,
        cosine=0.4633,
        origin=_LAVIS,
    ),
    MatchVector(
        checkpoint="model_base_retrieval_coco",
        picture="merlion.png",
        image_size=384,
        text="a random irrelevant caption",
        match=0.05704,
        cosine=0.23282,
        origin=_LAVIS,
    ),
    MatchVector(
        checkpoint="model_base_retrieval_coco",
        picture="demo.jpg",
        image_size=384,
        text="a woman sitting on the beach with a dog",
        match=0.9960,
        cosine=0.5262,
        first_token="[CLS]",
        origin=_DEMONSTRATION,
    ),
    MatchVector(
        checkpoint="model_large_retrieval_coco",
        picture="merlion.png",
        image_size=384,
        text="merlion in singapore",
        match=0.99466,
        cosine=0.4474,
        origin=_LAVIS,
    ),
    MatchVector(
        checkpoint="model_large_retrieval_coco",
        picture="merlion.png",
        image_size=384,
        text="a random irrelevant caption",
        match=0.04744,
        cosine=0.12821,
        origin=_LAVIS,
    ),
    MatchVector(
        checkpoint="model_base_capfilt_large",
        picture="merlion.png",
        image_size=224,
        text="a large fountain spewing water into the air",
        cosine=0.2622,
        origin=_LAVIS,
    ),
    GreedyTokensVector(
        checkpoint="model_base_capfilt_large",
        picture="demo.jpg",
        image_size=384,
        ids="30522 1037 2450 3564 2006 1996 3509 2007 2014 3899 102",
        origin=_CONVERTER,
    ),
    CaptionVector(
        checkpoint="model_large_caption",
        picture="merlion.png",
        image_size=384,
        caption="a large statue of a person spraying water from a fountain",
        num_beams=3,
        min_length=10,
        max_length=30,
        origin=_LAVIS,
    ),
    AnswerVector(
        checkpoint="model_base_vqa_capfilt_large",
        picture="merlion.png",
        image_size=480,
        question="Which city is this photo taken?",
        answer="singapore",
        origin=_LAVIS,
    ),
    RankVector(
        checkpoint="model_base_vqa_capfilt_large",
        picture="merlion.png",
        image_size=480,
        question="Which city is this photo taken?",
        answers=_CITIES,
        first="Singapore",
        origin=_LAVIS,
    ),
    AnswerVector(
        checkpoint="model_base_vqa_capfilt_large",
        picture="merlion.png",
        image_size=480,
        question="What time is this during the day?",
        answer="sunset",
        origin=_LAVIS,
    ),
    AnswerVector(
        checkpoint="model_base_vqa_capfilt_large",
        picture="merlion.png",
        image_size=480,
        question="Is it Singapore or London?",
        answer="singapore",
        origin=_LAVIS,
    ),
    AnswerVector(
        checkpoint="model_vqa",
        picture="demo.jpg",
        image_size=480,
        question="where is the woman sitting?",
        answer="on beach",
        origin=_DEMONSTRATION,
    ),
    CaptionVector(
        checkpoint="demo_caption",
        picture="black_heart.jpg",
        image_size=40,
        caption="the heart is black",
        num_beams=3,
        min_length=5,
        max_length=20,
        origin=_RECORDED,
    ),
    CaptionVector(
        checkpoint="demo_caption",
        picture="yellow_moon_and_orange_star.jpg",
        image_size=40,
        caption="two things, an orange star and a yellow moon",
        num_beams=3,
        min_length=5,
        max_length=20,
        origin=_RECORDED,
    ),
    MatchVector(
        checkpoint="demo_match",
        picture="black_heart.jpg",
        image_size=40,
        text="a black heart in the top left",
        match=0.69286,
        cosine=0.79848,
        origin=_RECORDED,
    ),
    MatchVector(
        checkpoint="demo_match",
        picture="black_heart.jpg",
        image_size=40,
        text="a blue moon",
        match=0.00043,
        cosine=0.68616,
        origin=_RECORDED,
    ),
    AnswerVector(
        checkpoint="demo_vqa",
        picture="black_heart.jpg",
        image_size=40,
        question="the heart is what color?",
        answer="black",
        origin=_RECORDED,
    ),
    RankVector(
        checkpoint="demo_vqa",
        picture="yellow_moon_and_orange_star.jpg",
        image_size=40,
        question="how many things are there?",
        answers=("1", "2", "yes"),
        first="2",
        origin=_RECORDED,
    ),
)
