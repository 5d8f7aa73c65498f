// qorus.nn: layers as values, pipes that compose and apply them, models that own their parameters, losses.
export module qorus.nn;
export import qorus.ops;
export import :param;
export import :layers;
export import :recurrent;
export import :description;
export import :any;
export import :compose;
export import :chain;
export import :transformer;
export import :init;
export import :model;
export import :loss;
export import :conv;
export import :models;
export import :summary;
export import :structure;
