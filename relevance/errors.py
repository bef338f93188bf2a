"""The two ways a command ends other than well."""


class Finding(Exception):
    """A check did its work and the answer is no: exit code 1.

    Wrong use is a plain ``ValueError`` or ``OSError`` instead: exit code 2.
    """
