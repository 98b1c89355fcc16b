import Brokering
import Testing

@Suite("The parts of a pool's machines")
struct HardwareTests {
  private let office = PoolName(rawValue: "office")

  private func disks(_ hardware: Hardware, name: String = "office") -> Pool {
    var pool = Pool.sample(name)
    pool.image = Image(kind: .disk, path: "/disk.raw")
    pool.hardware = hardware
    return pool
  }

  @Test("are as of old where nobody says otherwise")
  func defaults() throws {
    let world = try World.with()
    let hardware = try #require(world.site.pools[office]?.hardware)
    #expect(hardware == Hardware())
    #expect(hardware.firmware == .bios && hardware.diskBus == .ide)
    #expect(hardware.video == .std && hardware.audio == .ac97)
    #expect(hardware.network == .none && hardware.networkQueues == 1 && !hardware.usb)
  }

  @Test(
    "are read from text and written as such",
    arguments: ["std", "virtio", "virtio,outputs=2", "virtio,outputs=4"])
  func video(text: String) { #expect(Hardware.Video(text)?.description == text) }

  @Test(
    "a network is read from text and written as such",
    arguments: ["none", "user", "user,host=on", "tap:office", "tap:a.b-c_"])
  func network(text: String) { #expect(Hardware.Network(text)?.description == text) }

  @Test("one way to say a thing is written back")
  func canonical() {
    #expect(Hardware.Video("virtio,outputs=1")?.description == "virtio")
    #expect(Hardware.Network("user,host=off")?.description == "user")
  }

  @Test(
    "text that names nothing is refused",
    arguments: [
      "", "cirrus", "virtio,outputs=0", "virtio,outputs=5", "virtio,outputs=", "virtio,heads=2",
      "std,outputs=1",
    ])
  func badVideo(text: String) { #expect(Hardware.Video(text) == nil) }

  @Test(
    "a network that cannot be, or whose interfaces would not be told apart, is refused",
    arguments: [
      "", "bridge", "user,host=maybe", "tap", "tap:", "tap:1x", "tap:office1", "tap:officeoffice",
      "tap:a b", "tap:a/b", "tap:a,b", "tap:a%", "tap:ä", "socket:/run/x",
    ])
  func badNetwork(text: String) { #expect(Hardware.Network(text) == nil) }

  @Test("UEFI is not for kernels, and the reason is told")
  func kernels() throws {
    var site = Site()
    var pool = Pool.sample("office")
    pool.hardware.firmware = .uefi
    let error = #expect(throws: BrokerError.self) {
      try site.perform(.createPool(pool), now: Timestamp(milliseconds: 0))
    }
    #expect(error?.kind == .invalid)
    #expect(error?.description.contains("'/demo' is a kernel") == true)
    #expect(error?.description.contains("started without firmware") == true)
  }

  @Test("a pool with UEFI does not become one of kernels by accident")
  func becomingKernels() throws {
    var world = World()
    try world.perform(.createPool(disks(Hardware(firmware: .uefi))))
    var change = PoolChange()
    change.image = Image(kind: .kernel, path: "/kernel")
    #expect(throws: BrokerError.self) { try world.perform(.updatePool(office, change)) }
    change.firmware = .bios
    try world.perform(.updatePool(office, change))
    #expect(world.site.pools[office]?.hardware.firmware == .bios)
  }

  @Test("a bus is for disks, and goes with the last of them")
  func bus() throws {
    var world = World()
    var pool = Pool.sample("office")
    pool.hardware.diskBus = .virtio
    #expect(throws: BrokerError.self) { try world.perform(.createPool(pool)) }
    pool.image = Image(kind: .iso, path: "/cd.iso")
    #expect(throws: BrokerError.self) { try world.perform(.createPool(pool)) }
    pool.diskMiB = 1024
    try world.perform(.createPool(pool))
    var change = PoolChange()
    change.image = Image(kind: .kernel, path: "/kernel")
    try world.perform(.updatePool(office, change))
    #expect(world.site.pools[office]?.hardware.diskBus == .ide)
  }

  @Test("queues are for a network card, as many as that can have, and go with it")
  func queues() throws {
    var world = World()
    for (network, queues, reason) in [
      (.user(.off), 0, "the number of network queues is 0: choose 1 to 8"),
      (.tap(prefix: "lan"), 9, "the number of network queues is 9: choose 1 to 8"),
      (.none, 2, "no network card that could have 2 pairs of queues"),
    ] as [(Hardware.Network, Int, String)] {
      let pool = disks(Hardware(network: network, networkQueues: queues))
      let error = #expect(throws: BrokerError.self) { try world.perform(.createPool(pool)) }
      #expect(error?.kind == .invalid)
      #expect(error?.description.contains("pool 'office': ") == true)
      #expect(error?.description.contains(reason) == true, "\(String(describing: error))")
    }
    try world.perform(.createPool(disks(Hardware(network: .user(.off), networkQueues: 8))))
    var change = PoolChange()
    change.network = Hardware.Network.none
    try world.perform(.updatePool(office, change))
    #expect(world.site.pools[office]?.hardware == Hardware())
    change.networkQueues = 2
    #expect(throws: BrokerError.self) { try world.perform(.updatePool(office, change)) }
  }

  @Test("a change replaces the spares, keeps what it does not name, and leaves users alone")
  func change() throws {
    var world = try World.with(size: 3, spares: 1)
    world.arrive("alice")
    world.settle()
    var change = PoolChange()
    change.video = .virtio(outputs: 2)
    change.usb = true
    try world.perform(.updatePool(office, change))
    change = PoolChange()
    change.network = .user(.off)
    change.networkQueues = 4
    try world.perform(.updatePool(office, change))
    #expect(
      world.site.pools[office]?.hardware
        == Hardware(
          video: .virtio(outputs: 2), network: .user(.off), networkQueues: 4, usb: true))
    world.settle()
    #expect(world.desktop("office-1")?.phase == .connected)
    #expect(world.desktop("office-2") == nil)
    let desktops = world.site.desktops(of: office)
    #expect(desktops.contains { $0.phase == .clean })
  }

  @Test("reach the launcher with each start")
  func launch() throws {
    let pool = disks(Hardware(firmware: .uefi, audio: .none, diskBus: .virtio))
    var world = World()
    try world.perform(.createPool(pool))
    let requests = world.calls.compactMap { action in
      if case .start(let request) = action { return request }
      return LaunchRequest?.none
    }
    #expect(requests.map(\.hardware) == [pool.hardware])
    #expect(requests.map(\.desktop.number) == ["1"])
  }

  @Test("two pools do not share TAP interfaces")
  func interfaces() throws {
    var world = World()
    try world.perform(.createPool(disks(Hardware(network: .tap(prefix: "lan")))))
    let second = disks(Hardware(network: .tap(prefix: "lan")), name: "study")
    let error = #expect(throws: BrokerError.self) { try world.perform(.createPool(second)) }
    #expect(error?.kind == .conflict)
    #expect(error?.description.contains("pool 'office' has the network tap:lan, too") == true)
    try world.perform(.createPool(disks(Hardware(network: .user(.on)), name: "study")))
    var change = PoolChange()
    change.network = .tap(prefix: "lan")
    #expect(throws: BrokerError.self) {
      try world.perform(.updatePool(PoolName(rawValue: "study"), change))
    }
    change.network = .tap(prefix: "lab")
    try world.perform(.updatePool(PoolName(rawValue: "study"), change))
    change = PoolChange()
    change.spares = 2
    try world.perform(.updatePool(office, change))
  }
}
