from .pipeline import prepare as prepare
from .pipeline import prepared_digest as prepared_digest
