"""Teachers: the networks whose features 4M-21 learned to predict; they make them of RGB directly."""

from .gallery import TeacherEmbedder, open_gallery
from .sources import TEACHERS, TeacherSource
from .teacher import Teacher, load_teacher

__all__ = ["TEACHERS", "Teacher", "TeacherEmbedder", "TeacherSource", "load_teacher", "open_gallery"]
