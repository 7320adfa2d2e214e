"""Callbacks for the training loops of other libraries; each module needs the library it is for."""
