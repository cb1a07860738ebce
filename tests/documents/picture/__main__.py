"""`make picture`: live through some minutes, and write the picture of the dashboard."""

import time

from tests.deploy.boards import BOARD
from tests.documents.picture.answers import Span, answers
from tests.documents.picture.life import SECONDS, lived
from tests.documents.picture.page import PICTURE, picture

with lived() as scraping:
    span = Span(time.time() - SECONDS, time.time())
    drawn = picture(answers(BOARD["panels"], scraping, span), span)
PICTURE.write_text(drawn, encoding="utf-8")
