"""How a model is loaded and asked, and how a table is read: the layer below app, REST service and trainer."""
