import DeviceModel

/// Feature bits that belong to the transport and its queues (VIRTIO 1.2, section 6).
package enum VirtioFeature {
  package static let indirectDescriptors: UInt64 = 1 << 28
  package static let eventIndex: UInt64 = 1 << 29
  package static let version1: UInt64 = 1 << 32
  package static let ringPacked: UInt64 = 1 << 34
  /// What every transport here offers besides its device's own.
  package static let common = indirectDescriptors | eventIndex | version1 | ringPacked
}

/// What lies behind a virtio transport: one of the device types of VIRTIO 1.2,
/// section 5. Everything happens under the device lock.
package protocol VirtioDevice: AnyObject {
  /// Device type (section 5).
  var type: UInt16 { get }
  /// For names of regions and log lines ("virtio-blk").
  var name: String { get }
  /// PCI class code, from the base class down.
  var classCode: UInt32 { get }
  /// The device's own feature bits, 0 … 23 and 50 on.
  var features: UInt64 { get }
  /// The largest size of each queue, a power of two; its count is that of the queues.
  var queueSizes: [UInt16] { get }
  /// Set by the transport, which outlives its use.
  var transport: (any VirtioTransport)? { get set }

  /// One byte of configuration space; 0 beyond its end.
  func readConfiguration(_ offset: Int) -> UInt8
  func writeConfiguration(_ offset: Int, _ value: UInt8)

  /// DRIVER_OK was set, with these features agreed upon.
  func start(features: UInt64)
  /// The driver made buffers available, or may have. Takes no more chains in one call
  /// than a queue has entries, and asks `transport.notifyAgain` for the rest.
  func notify(queue: Int)
  /// Forgets requests under way and everything agreed upon.
  func reset()
  /// A restored machine goes on, its memory filled: requests under way are made again.
  func resume()
}

/// What a virtio device is given by its transport. Device lock held.
package protocol VirtioTransport: AnyObject {
  var memory: any GuestMemory { get }
  /// The driver is up and the device did not break.
  var isRunning: Bool { get }

  /// The next chain that the driver made available; `nil` when there is none, the
  /// queue is not enabled, or the chain was malformed and the device is broken now.
  func nextChain(_ queue: Int) -> VirtqueueChain?
  /// The next chains, at most `most`, whose writable parts together have `room`.
  func nextChains(_ queue: Int, room: Int, most: Int) -> ChainSupply
  /// Gives a chain back with `written` bytes in its writable part, and interrupts the
  /// driver if it wants that.
  func complete(_ chain: VirtqueueChain, written: Int, on queue: Int)
  /// The same for chains that were taken together, filled one after another with `written`
  /// bytes in all.
  func complete(_ chains: ChainGroup, written: Int, on queue: Int)
  /// Has `notify` called again soon, not from within this call.
  func notifyAgain(_ queue: Int)
  /// The driver did what it must not: the device needs a reset (section 2.1.2).
  func fail(_ reason: String)
  /// Configuration space changed by itself.
  func configurationChanged()
}

extension VirtioTransport {
  /// The chain's readable bytes; `nil` when they are not RAM, and the device is broken.
  package func read(_ chain: VirtqueueChain, from offset: Int, count: Int) -> [UInt8]? {
    if let bytes = chain.read(from: offset, count: count, memory) { return bytes }
    fail("a buffer is too short or not in RAM")
    return nil
  }

  /// Fills the chain's writable part; `false` when it is not RAM, and the device is broken.
  package func write(_ bytes: [UInt8], to chain: VirtqueueChain, at offset: Int) -> Bool {
    write(bytes[...], to: chain, at: offset)
  }

  package func write(
    _ bytes: ArraySlice<UInt8>, to chain: VirtqueueChain, at offset: Int
  ) -> Bool {
    if chain.write(bytes, at: offset, memory) { return true }
    fail("a buffer is too short or not in RAM")
    return false
  }
}
