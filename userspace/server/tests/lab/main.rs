//! The real server in the lab, used as Linux clients use it; `../README.md` has a table of the tests.
//!
//! One program for all of them, since each that is linked costs seconds. They take turns in the one lab there is.

mod addresses;
mod admin;
mod behaviour;
mod bench_agents;
mod bench_clients;
mod bench_over_links;
mod capture;
mod coexistence;
mod control;
mod device;
mod doctor;
mod faults;
mod fixture;
mod flood_memory;
mod floods;
mod flow_filter;
mod full_table;
mod guard;
mod http;
mod idle;
mod impaired;
mod interop;
mod jumbo;
mod kernel_side;
mod life;
mod load;
mod lost_state;
mod modes;
mod moved_flows;
mod next_hop;
mod nic;
mod output;
mod path_mtu;
mod privileges;
mod queues;
mod reload;
mod scale_out;
mod several_devices;
mod slow_readers;
mod syn_cookies;
mod take_over;
mod transfers;
