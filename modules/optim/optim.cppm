// qorus.optim: optimizers, each one fused pass over the parameters, their gradients and their moments.
export module qorus.optim;
export import qorus.nn;
export import :optimizer;
export import :schedule;
