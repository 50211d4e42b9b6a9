"""One file per op, read downwards: schema, gradient rule, public function."""
