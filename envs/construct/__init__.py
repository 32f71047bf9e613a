"""Environments built from questions, in five stages (FTRL, 2508.08791): each a function from a record to the next one."""
