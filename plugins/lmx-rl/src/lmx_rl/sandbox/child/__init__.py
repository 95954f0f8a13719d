"""What runs beside a program, in a process that has the standard library and nothing else.

These files are also started on their own, without `lmx_rl` being importable: they import one another relatively.
"""
