import Devices
import KVM
import LinuxSystem

/// Notifications of virtio queues that reach the device without an exit of the vCPU
/// that wrote them: an ioeventfd each, and one thread that answers them all.
final class Doorbells {
  /// Owned by the device lock, but for the event, which any thread may use.
  private final class Bell {
    let event: EventDescriptor
    let index: Int
    weak var target: (any DoorbellTarget)?
    var attached: KVMMachine.Doorbell?

    init(_ target: any DoorbellTarget, _ index: Int) throws(SystemError) {
      event = try EventDescriptor()
      self.index = index
      self.target = target
    }
  }

  private static let endToken = UInt64.max

  private let kvm: KVMMachine
  private let lock: Lock
  private let poller: Poller
  private let ending: EventDescriptor
  private var bells: [Bell] = []

  init(_ kvm: KVMMachine, lock: Lock) throws(SystemError) {
    self.kvm = kvm
    self.lock = lock
    poller = try Poller()
    ending = try EventDescriptor()
    try poller.add(ending.descriptor, token: Self.endToken)
  }

  // MARK: Device lock held

  func add(_ target: any DoorbellTarget) throws(SystemError) {
    for index in 0..<target.doorbellCount {
      let bell = try Bell(target, index)
      try poller.add(bell.event.descriptor, token: UInt64(bells.count))
      bells.append(bell)
    }
  }

  /// Has the thread ring a bell of `target`.
  func ring(_ target: any DoorbellTarget, _ index: Int) {
    bells.first { $0.target === target && $0.index == index }?.event.signal()
  }

  /// The registers of `target` appeared at `base`, or went. Where the kernel refuses a
  /// doorbell, the write exits, and rings it the slow way.
  func moved(_ target: any DoorbellTarget, to base: UInt64?) {
    for bell in bells where bell.target === target {
      if let old = bell.attached { try? kvm.detach(bell.event, from: old) }
      bell.attached = nil
      guard let base else { continue }
      let doorbell = KVMMachine.Doorbell(
        address: base &+ target.doorbellOffset(bell.index), width: 2, isPort: false)
      guard (try? kvm.attach(bell.event, to: doorbell)) != nil else { continue }
      bell.attached = doorbell
    }
  }

  // MARK: The thread

  func end() { ending.signal() }

  func run() {
    while let events = try? poller.wait() {
      for event in events {
        guard event.token != Self.endToken else { return }
        lock.withLock {
          guard event.token < UInt64(bells.count) else { return }
          let bell = bells[Int(event.token)]
          bell.event.drain()
          bell.target?.ring(bell.index)
        }
      }
    }
  }
}
