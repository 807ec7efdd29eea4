"""Errors of the local cluster command; the text of each is printed to the user.

ClusterError
    ToolError        a program of the machine is missing or failed
    BuildError       a cluster binary could not be built
    StartError       a part of the cluster did not become ready
    ImageError       an image could not be built or pushed
    DiskSpaceError   the disk is too full
"""


class ClusterError(Exception):
    """Base of everything this command reports and exits 1 for."""


class ToolError(ClusterError):
    """A program of the machine is missing or failed."""


class BuildError(ClusterError):
    """A cluster binary could not be built."""


class StartError(ClusterError):
    """A part of the cluster did not become ready."""


class ImageError(ClusterError):
    """An image could not be built or pushed."""


class DiskSpaceError(ClusterError):
    """The disk is too full."""
