from .app import create_app as create_app
from .app import serve as serve
from .messages import Recommendations as Recommendations
from .messages import Request as Request
from .pipeline import Pipeline as Pipeline
