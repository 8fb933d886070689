from .config import RulesConfig as RulesConfig
from .rules import Candidates as Candidates
from .rules import Reranked as Reranked
from .rules import Rules as Rules
