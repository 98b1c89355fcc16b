import Glibc
import KVM
import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite(
  "The small Linux on many processors", .needsKVM, .isSlow, .serialized,
  .enabled(
    if: SmallLinux.isBuiltForMany,
    "needs the variant for many: 'make guest-linux GUEST_LINUX_VARIANT=smp' builds it"))
struct ManyProcessorsLinuxTests {
  private static let count = 4
  /// Their numbers, as a shell's words.
  private static let each = (0..<count).map(String.init).joined(separator: " ")

  @Test(
    "all are there and at work, cores of one package, as they were configured",
    arguments: [count, 16])
  func topology(count: Int) throws {
    let linux = try SmallLinux.with(processors: count)
    #expect(try linux.run("cat /sys/devices/system/cpu/online") == "0-\(count - 1)\n")
    let information = try linux.run("cat /proc/cpuinfo")
    func values(_ key: String) -> [String] {
      information.split(separator: "\n").filter { $0.hasPrefix("\(key)\t") }
        .map { String($0.drop { $0 != ":" }.dropFirst(2)) }
    }
    let numbers = (0..<count).map(String.init)
    let words = numbers.joined(separator: " ")
    for key in ["processor", "core id", "apicid", "initial apicid"] {
      #expect(values(key) == numbers, "\(key)")
    }
    #expect(values("physical id") == numbers.map { _ in "0" })
    for key in ["siblings", "cpu cores"] {
      #expect(values(key) == numbers.map { _ in "\(count)" }, "\(key)")
    }
    let shared = try linux.run(
      "cd /sys/devices/system/cpu; cat cpu*/topology/thread_siblings_list | sort -n; cd /")
    #expect(shared.split(separator: "\n").map(String.init) == numbers)
    // Each carries out what is bound to it, all at once.
    let places = try linux.run(
      "for c in \(words); do taskset $(printf %x $((1 << c))) sh -c"
        + " 'i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done;"
        + " cut -d\" \" -f39 /proc/self/stat >/tmp/ran'$c & done; wait;"
        + " for c in \(words); do cat /tmp/ran$c; done")
    #expect(places.split(separator: "\n").map(String.init) == numbers)
    try linux.expectKnownLog()
  }

  @Test("each has the TSC's deadline for a timer, and KVM's clock, steal time and noted ends")
  func paravirtual() throws {
    let linux = try SmallLinux.with(processors: Self.count)
    let place = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
    #expect(try linux.run("cat \(place)") == "kvm-clock\n")
    let log = try linux.run("dmesg")
    #expect(log.contains("TSC deadline timer available"))
    for number in 0..<Self.count {
      #expect(log.contains("stealtime: cpu \(number), msr"), "\(number)")
      let timer = "/sys/devices/system/clockevents/clockevent\(number)/current_device"
      #expect(try linux.run("cat \(timer)") == "lapic-deadline\n")
    }
    // Its registers, which only the kernel of the guest writes.
    let kernel = try #require(
      try linux.machine.save().devices.state(SavedKernel.self, of: "kernel"))
    #expect(kernel.cpus.count == Self.count)
    for register: UInt32 in [0x4B56_4D01, 0x4B56_4D03, 0x4B56_4D04] {
      let values = kernel.cpus.compactMap { cpu in
        cpu.modelSpecificRegisters.first { $0.index == register }?.value
      }
      #expect(values.allSatisfy { $0 & 1 == 1 }, "\(values)")
      // Each has a place of its own.
      #expect(Set(values).count == Self.count, "\(values)")
    }
  }

  private struct SavedKernel: Decodable {
    var cpus: [VirtualCPU.State]
  }

  @Test("counts as stolen what the host gives to others", .needs("taskset"))
  func stolen() throws {
    let linux = try SmallLinux.with(processors: Self.count)
    // All vCPUs on one processor of the host, which they want at once.
    let files = try TemporaryDirectory()
    try files.succeed(
      "for t in /proc/\(getpid())/task/*; do read -r name <$t/comm;"
        + " case $name in vcpu*) taskset -cp 0 ${t##*/} >/dev/null;; esac; done")
    let stolen = try linux.run(
      "for c in \(Self.each); do taskset $((1 << c)) sh -c"
        + " 'i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done' & done; wait;"
        + " grep '^cpu[0-9]' /proc/stat | cut -d' ' -f9")
    let ticks = stolen.split(separator: "\n").compactMap { Int($0) }
    #expect(ticks.count == Self.count && ticks.allSatisfy { $0 > 0 }, "\(stolen)")
  }

  /// A row of /proc/interrupts: how often it came at each.
  private func row(_ name: String, _ linux: SmallLinux) throws -> [Int] {
    let text = try linux.run("grep -E '(^ *|[ -])\(name)(:|$)' /proc/interrupts")
    return text.split(separator: " ").dropFirst().prefix(Self.count).compactMap { Int($0) }
  }

  @Test("a disk and a network card have a queue for each, whose interrupts come there")
  func queues() throws {
    let linux = try SmallLinux.with(processors: Self.count)
    for number in 0..<Self.count {
      let name = "req.\(number)"
      let disk = try linux.run(
        "cd /sys/block/vda/device; basename $(pwd -P); cd /"
      ).filter { !$0.isWhitespace }
      let before = try row("\(disk)-\(name)", linux)
      try linux.run(
        "echo 3 >/proc/sys/vm/drop_caches; taskset \(1 << number)"
          + " dd if=/dev/vda of=/dev/null bs=64k count=4 skip=\(number * 4) 2>/dev/null")
      let after = try row("\(disk)-\(name)", linux)
      let grown = zip(before, after).map { $1 - $0 }
      #expect(grown.count == Self.count, "\(before) \(after)")
      for (index, count) in grown.enumerated() {
        #expect(index == number ? count > 0 : count == 0, "\(name): \(grown)")
      }
    }
    let queues = try linux.run(
      "ip link set eth0 up; ls -d /sys/class/net/eth0/queues/rx-* | wc -l")
    #expect(queues.filter { !$0.isWhitespace } == "\(Self.count)")
    let bound = try linux.run(
      "for i in $(grep -E 'virtio[0-9]+-input[.]' /proc/interrupts | cut -d: -f1);"
        + " do cat /proc/irq/$i/smp_affinity_list; done")
    #expect(
      bound.split(separator: "\n").map(String.init) == (0..<Self.count).map(String.init))
    try linux.expectKnownLog()
  }

  @Test("they interrupt each other, take NMIs, and can be stopped and started anew")
  func interrupts() throws {
    let linux = try SmallLinux.with(processors: Self.count)
    let calls = try row("CAL", linux)
    // Each other one is called to forget what it knows of a page.
    try linux.run(
      "for c in \(Self.each); do taskset $((1 << c)) sh -c"
        + " 'echo 3 >/proc/sys/vm/drop_caches; for i in 1 2 3; do cat /proc/stat >/dev/null; done' &"
        + " done; wait; sync")
    #expect(zip(calls, try row("CAL", linux)).map { $1 - $0 }.reduce(0, +) > 0)
    for number in 1..<Self.count {
      let online = "/sys/devices/system/cpu/cpu\(number)/online"
      try linux.run("echo 0 >\(online) && [ $(cat \(online)) = 0 ]")
      try linux.run("echo 1 >\(online) && [ $(cat \(online)) = 1 ]", seconds: 600)
    }
    #expect(try linux.run("cat /sys/devices/system/cpu/online") == "0-\(Self.count - 1)\n")
    try linux.expectKnownLog()
    let before = try row("NMI", linux)
    try linux.machine.injectNMI()
    try eventually("the NMI") { try row("NMI", linux) != before }
  }

  @Test("all go on where they were in another machine")
  func restored() throws {
    let linux = try SmallLinux.with(processors: Self.count)
    try linux.run(
      "for c in \(Self.each); do (taskset $((1 << c)) sh -c"
        + " 'i=0; while :; do i=$((i + 1)); [ $((i % 2000)) != 0 ] || echo $i >/tmp/count'$c'; done') & done"
    )
    func counts(_ linux: SmallLinux) throws -> [Int] {
      try linux.run("cat /tmp/count?").split(separator: "\n").compactMap { Int($0) }
    }
    func awaitProgress(_ linux: SmallLinux, from start: [Int]) throws {
      try eventually("all processors to go on", seconds: 600) {
        let now = try counts(linux)
        return now.count == Self.count && zip(now, start).allSatisfy { $0 > $1 }
      }
    }
    try awaitProgress(linux, from: Array(repeating: 0, count: Self.count))
    let before = try counts(linux)
    let second = try linux.goingOn()
    try awaitProgress(second, from: before)
    try awaitProgress(second, from: try counts(second))
    #expect(try second.run("cat /sys/devices/system/cpu/online") == "0-\(Self.count - 1)\n")
    try second.expectKnownLog()
  }
}
