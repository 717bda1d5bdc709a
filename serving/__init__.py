"""How models are loaded and asked, and tables read: the layer below app, REST service and trainer."""
