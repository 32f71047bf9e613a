"""An author that needs no model: questions, tools and their data from a grammar over small invented worlds, drawn from a seed."""
