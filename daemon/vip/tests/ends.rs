//! A process that ends takes no address any more, whichever of its threads asks. Alone in its
//! process: it cannot be taken back.

use duolog_vip::{Device, Mac, VipError, take, take_no_more};

#[test]
fn a_process_that_ends_takes_no_address() {
    take_no_more();
    let device = Device { index: 1, name: "eth0".into(), mac: Mac([2; 6]) };
    let refused = take("192.0.2.9/24".parse().unwrap(), &device).unwrap_err();
    assert!(matches!(refused, VipError::Ends { .. }), "{refused}");
}
