//! The TCP proxy, with a server that answers each byte with itself.

use std::{io, net::SocketAddr, time::Duration};

use faults::tcp::{Flow, Link};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const SHORT: Duration = Duration::from_millis(150);

async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.into_split();
                tokio::io::copy(&mut from, &mut to).await.ok();
            });
        }
    });
    address
}

async fn link() -> (Link, TcpStream) {
    let link = Link::start(echo().await).await.unwrap();
    let stream = TcpStream::connect(link.address()).await.unwrap();
    (link, stream)
}

async fn answer(stream: &mut TcpStream) -> io::Result<u8> {
    tokio::time::timeout(Duration::from_secs(5), stream.read_u8()).await.expect("an answer or an end in time")
}

async fn silent(stream: &mut TcpStream) -> bool {
    tokio::time::timeout(SHORT, stream.read_u8()).await.is_err()
}

#[tokio::test]
async fn a_sound_line_carries_both_ways_and_ends_in_order() {
    let (_link, mut stream) = link().await;
    stream.write_all(b"ab").await.unwrap();
    assert_eq!((answer(&mut stream).await.unwrap(), answer(&mut stream).await.unwrap()), (b'a', b'b'));
    stream.shutdown().await.unwrap();
    assert_eq!(answer(&mut stream).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_delayed_line_is_late() {
    let (link, mut stream) = link().await;
    link.handle().delay(Duration::from_millis(100));
    let began = std::time::Instant::now();
    stream.write_all(b"a").await.unwrap();
    answer(&mut stream).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_cut_line_is_reset_and_can_be_made_again() {
    let (link, mut stream) = link().await;
    stream.write_all(b"a").await.unwrap();
    answer(&mut stream).await.unwrap();
    link.handle().cut();
    assert_eq!(answer(&mut stream).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let mut again = TcpStream::connect(link.address()).await.unwrap();
    again.write_all(b"b").await.unwrap();
    assert_eq!(answer(&mut again).await.unwrap(), b'b');
    link.handle().refuse();
    assert!(answer(&mut again).await.is_err());
    let mut refused = TcpStream::connect(link.address()).await.unwrap();
    assert!(answer(&mut refused).await.is_err());
}

#[tokio::test]
async fn what_is_said_during_a_partition_arrives_late() {
    let (link, mut stream) = link().await;
    link.handle().partition();
    stream.write_all(b"a").await.unwrap();
    let mut new = TcpStream::connect(link.address()).await.unwrap();
    new.write_all(b"n").await.unwrap();
    assert!(silent(&mut stream).await && silent(&mut new).await);
    link.handle().heal();
    assert_eq!((answer(&mut stream).await.unwrap(), answer(&mut new).await.unwrap()), (b'a', b'n'));
}

#[tokio::test]
async fn what_is_said_over_a_half_open_line_is_lost() {
    let (link, mut stream) = link().await;
    link.handle().half_open();
    stream.write_all(b"a").await.unwrap();
    assert!(silent(&mut stream).await);
    link.handle().heal();
    assert_eq!(answer(&mut stream).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_line_breaks_one_way_only() {
    let (link, mut stream) = link().await;
    link.handle().set(Flow::Pass, Flow::Hold, false);
    stream.write_all(b"a").await.unwrap();
    assert!(silent(&mut stream).await);
    link.handle().set(Flow::Hold, Flow::Pass, false);
    // It had arrived, so the answer comes though nothing more is heard there.
    assert_eq!(answer(&mut stream).await.unwrap(), b'a');
    stream.write_all(b"b").await.unwrap();
    assert!(silent(&mut stream).await);
    link.handle().heal();
    assert_eq!(answer(&mut stream).await.unwrap(), b'b');
}
