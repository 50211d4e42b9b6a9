"""The calculus of one kind of layer per file: how to differentiate it, twice and further, without waste."""
