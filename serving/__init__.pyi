from .app import create_app as create_app
from .app import serve as serve
from .recommender import Recommendations as Recommendations
from .recommender import Recommender as Recommender
from .recommender import Request as Request
