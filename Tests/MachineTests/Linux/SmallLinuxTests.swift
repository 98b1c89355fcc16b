import Glibc
import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("The small Linux", .needsKVM, .needsSmallLinux, .serialized)
struct SmallLinuxTests {
  @Test("finds its devices, and drives them with the drivers it has")
  func devices() throws {
    let linux = try SmallLinux()
    let drivers = try linux.run("ls /sys/bus/pci/drivers/*/ | grep -E '^[/0]'")
    for (driver, device) in [
      ("bochs-drm", "0000:00:02.0"), ("ata_piix", "0000:00:01.1"), ("virtio-pci", "0000:00:10.0"),
      ("snd_intel8x0", "0000:00:04.0"),
    ] {
      let list = drivers.split(separator: "/sys/").first { $0.contains("/\(driver)/:") } ?? ""
      #expect(list.contains(device), "\(driver): \(drivers)")
    }
    let codec = try linux.run("cat '/proc/asound/card0/codec97#0/ac97#0-0'")
    #expect(codec.contains("STAC9700") && codec.contains("Extended status  : VRA"), "\(codec)")
    let inputs = try linux.run("grep Name /proc/bus/input/devices")
    for name in ["AT ", "VirtualPS/2 VMware VMMouse", "Power Button", "Sleep Button"] {
      #expect(inputs.contains(name), "\(inputs)")
    }
  }

  @Test("its kernel says nothing but what is known, line by line")
  func log() throws {
    let linux = try SmallLinux()
    try linux.expectKnownLog()
    // What is expected of every boot, and nothing said, is expected in vain.
    let lines = try linux.log().map { Array($0.text.utf8) }
    for known in KernelLog.all where known.isSure {
      #expect(lines.contains { known.matches($0) }, "no line is like '\(known.text)'")
    }
  }

  @Test("no line that its kernel may say could be just any, and each has its reason")
  func knownLines() {
    for known in KernelLog.all {
      let itself = known.text.filter { $0 != "*" && $0 != "#" }
      #expect(itself.count >= 6 || !known.text.contains("*") && !itself.isEmpty, "\(known.text)")
      #expect(!known.reason.isEmpty, "\(known.text)")
    }
    #expect(Set(KernelLog.all.map(\.text)).count == KernelLog.all.count)
    let known = KnownLine("pci 0000:00:#.#: BAR # [mem #-#*]", "", isSure: false)
    #expect(known.matches(Array("pci 0000:00:0f.6: BAR 4 [mem 0xfe030000-0xfe037fff]".utf8)))
    #expect(known.matches(Array("pci 0000:00:0e.0: BAR 0 [mem 0x1-0x2 64bit]".utf8)))
    #expect(!known.matches(Array("pci 0000:00:0f.6: BAR 4 [io  0xc000-0xc00f]".utf8)))
    #expect(!known.matches(Array("pci 0000:00:0f.6: BAR 4 [mem 0x1-0x2] and more".utf8)))
    #expect(KernelLine("<12>EXT4-fs: text > more") == KernelLine("<4>EXT4-fs: text > more"))
    #expect(KernelLine("<6>usb: it is not there")?.tellsOfTrouble == true)
    #expect(KernelLine("<3>usb: good morning")?.tellsOfTrouble == true)
    #expect(KernelLine("<6>usb: good morning")?.tellsOfTrouble == false)
    // Of IDE's second registers, a port each.
    let port = KernelLine(
      "<7>pci 0000:00:01.1: BAR 3: reserving [io  0x0376 flags 0x110] (d=0, p=0)")
    #expect(port.map(KernelLog.knows) == true)
    // What tells of trouble is not known by what is no reason for that.
    let news = KernelLine("<6>Unpacking initramfs...")
    #expect(news.map(KernelLog.knows) == true)
    #expect(KernelLine("<4>Unpacking initramfs...").map(KernelLog.knows) == false)
  }

  @Test("keeps time by KVM's clock")
  func clock() throws {
    let linux = try SmallLinux()
    let place = "/sys/devices/system/clocksource/clocksource0"
    let offered = try linux.run("cat \(place)/available_clocksource")
    #expect(offered.split(separator: " ").contains("kvm-clock"), "\(offered)")
    // Linux prefers a processor's own clock that is constant and never stops.
    let flags = try linux.run("grep -m 1 ^flags /proc/cpuinfo").split(
      whereSeparator: \.isWhitespace)
    let isConstant = flags.contains("constant_tsc") && flags.contains("nonstop_tsc")
    let current = try linux.run("cat \(place)/current_clocksource")
    #expect(current == (isConstant ? "tsc\n" : "kvm-clock\n"))
  }

  @Test("has random bytes from the host")
  func random() throws {
    let linux = try SmallLinux()
    let source = try linux.run("cat /sys/class/misc/hw_random/rng_current")
    #expect(source.hasPrefix("virtio_rng"))
    let parts = try (0..<2).map { _ in
      let text = try linux.run(
        "dd if=/dev/hwrng bs=512 count=4 iflag=fullblock 2>/dev/null | od -An -v -tx1")
      return text.split(whereSeparator: \.isWhitespace)
    }
    #expect(parts.allSatisfy { $0.count == 2048 })
    #expect(parts.first != parts.last)
    // 2048 of 256 values: 256 e^-8 of them lack on average.
    for part in parts { #expect(Set(part).count > 240) }
  }

  @Test("talks with programs of the host over sockets of its own, whoever begins")
  func sockets() throws {
    let linux = try SmallLinux()
    let bytes = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 7) }
    let shell = "EXEC:/bin/busybox"
    try linux.run("(desktop socat -t 60 VSOCK-LISTEN:1234 '\(shell) cat' >/tmp/socat 2>&1 &)")
    var program: UnixSocket?
    try eventually("the guest to listen") {
      let socket = try UnixSocket.connect(to: linux.vsock, kind: .stream)
      try socket.descriptor.writeAll(Array("CONNECT 1234\n".utf8))
      var answer: [UInt8] = []
      while answer.last != 0x0A {
        let part = try socket.receive(capacity: 1)
        guard !part.isEnd else { return false }
        answer += part.bytes
      }
      program = socket
      return String(decoding: answer, as: UTF8.self).hasPrefix("OK ")
    }
    #expect(try exchange(bytes, try #require(program)) == bytes)

    let listener = try UnixListener(at: "\(linux.vsock)_1235", kind: .stream)
    try linux.run("(desktop socat -t 60 VSOCK-CONNECT:2:1235 '\(shell) md5sum' >/tmp/socat 2>&1 &)")
    let poller = try Poller()
    try poller.add(listener.descriptor, token: 0)
    try #require(!(try poller.wait(milliseconds: 120_000)).isEmpty, "nobody connects")
    let sum = String(decoding: try exchange(bytes, try listener.accept()), as: UTF8.self)
    let files = try TemporaryDirectory()
    #expect(try files.run("md5sum <\(try files.write(bytes, to: "sent"))").output == sum)
    try linux.expectKnownLog()
  }

  /// What comes back until the end, once `bytes` were sent and nothing follows.
  private func exchange(_ bytes: [UInt8], _ socket: UnixSocket) throws -> [UInt8] {
    let sender = try Thread(name: "sender") {
      try? socket.descriptor.writeAll(bytes)
      socket.shutDownSending()
    }
    let poller = try Poller()
    try poller.add(socket.descriptor, token: 0)
    var got: [UInt8] = []
    while true {
      try #require(!(try poller.wait(milliseconds: 120_000)).isEmpty, "\(got.count) bytes came")
      let part = try socket.receive()
      guard !part.isEnd else { break }
      got += part.bytes
    }
    sender.join()
    return got
  }

  @Test("copies a disk from IDE to virtio, and the host finds it there")
  func disks() throws {
    let linux = try SmallLinux()
    _ = try linux.run("dd if=/dev/sda of=/dev/vda bs=64k conv=fsync 2>&1")
    #expect(try SmallLinux.disk("virtio") == SmallLinux.diskContents)
    try linux.expectKnownLog()
  }

  @Test("writes and reads at random on IDE and virtio disks, and finds the same in both")
  func randomAccess() throws {
    let linux = try SmallLinux()
    // Each piece goes to both disks, and comes back from one of them to the other.
    let script = """
      dd if=/dev/sda of=/dev/vda bs=64k 2>/dev/null; i=0; \
      while [ $i -lt 40 ]; do \
      n=$((RANDOM % 40 + 1)); at=$((RANDOM % 2000)); from=$((RANDOM % 2000)); \
      dd if=/dev/urandom of=/tmp/part bs=512 count=$n 2>/dev/null; \
      for d in sda vda; do dd if=/tmp/part of=/dev/$d bs=512 seek=$at conv=notrunc 2>/dev/null; done; \
      [ $((i % 4)) = 0 ] && sync && echo 3 >/proc/sys/vm/drop_caches; \
      dd if=/dev/vda of=/tmp/back bs=512 skip=$from count=$n 2>/dev/null; \
      at=$((RANDOM % 2000)); \
      for d in sda vda; do dd if=/tmp/back of=/dev/$d bs=512 seek=$at conv=notrunc 2>/dev/null; done; \
      i=$((i + 1)); done; sync; echo 3 >/proc/sys/vm/drop_caches; md5sum </dev/sda; md5sum </dev/vda
      """
    let sums = try linux.run(script, seconds: 300).split(separator: "\n").map { $0.prefix(32) }
    #expect(sums.count == 2 && sums.first == sums.last)
    let files = try TemporaryDirectory()
    for contents in [try SmallLinux.disk("disk"), try SmallLinux.disk("virtio")] {
      let path = try files.write(contents, to: "copy")
      let sum = try files.run("md5sum \(path) | cut -c1-32").output
      #expect(sum.filter { !$0.isWhitespace } == sums.first ?? "")
    }
    try linux.expectKnownLog()
  }

  @Test("gives memory up to its balloon, which the host has then, and takes it back")
  func balloon() throws {
    let linux = try SmallLinux()
    let size = linux.machine.configuration.memory
    let wanted = size - (48 << 20)
    try linux.machine.setBalloon(memory: wanted)
    linux.waitForMemory(wanted)
    #expect(linux.machine.hostMemory <= wanted)
    try linux.machine.setBalloon(memory: size)
    linux.waitForMemory(size)
    let told = try linux.machine.readBalloon()
    #expect(told.memory == size && told.time > 0)
    #expect(told.statistics["stat-total-memory"].map { (64 << 20...size).contains($0) } == true)
    try linux.expectKnownLog()
  }

  @Test("gives back memory that it let go of, with its balloon left alone")
  func freePages() throws {
    let linux = try SmallLinux()
    // A machine that goes on has all of it on the host, free or not.
    let before = linux.machine.hostMemory
    try linux.run("cat /dev/vdb >/dev/null; echo 3 >/proc/sys/vm/drop_caches", seconds: 900)
    // Linux tells of whole free blocks, two seconds later.
    try eventually("the host to have the pages again", seconds: 300) {
      linux.machine.hostMemory + (64 << 20) <= before
    }
    #expect(try linux.machine.readBalloon().memory == linux.machine.configuration.memory)
    try linux.expectKnownLog()
  }

  @Test("talks with the host through a channel that it finds by its name")
  func channel() throws {
    let linux = try SmallLinux()
    let name = try linux.channelDevice()
    let host = try linux.channel()
    try host.descriptor.writeAll(Array("to the guest\n".utf8))
    #expect(try linux.run("head -n 1 /dev/\(name)") == "to the guest\n")
    try linux.tell("cat /proc/cmdline > /dev/\(name)")
    var bytes: [UInt8] = []
    while bytes.last != 0x0A { bytes += try host.receive().bytes }
    #expect(String(decoding: bytes, as: UTF8.self).contains("console=ttyS0"))
    try linux.expectKnownLog()
  }

  @Test("has an address from passt, and reaches a server of the host", .needs("python3"))
  func network() throws {
    let files = try TemporaryDirectory()
    let contents = (0..<200_000).map { UInt8(truncatingIfNeeded: $0 &* 13 ^ $0 >> 8) }
    _ = try files.write(contents, to: "file")
    let server = try LoggedProcess(
      "/usr/bin/python3",
      ["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", files.path])
    #expect(server.says("/) ..."))
    let port = try #require(
      server.text.split(separator: " ").drop { $0 != "port" }.dropFirst().first)
    let linux = try SmallLinux()
    // What the lease says is set by a script; the host answers at the router's address.
    let script = "/tmp/lease"
    _ = try linux.run(
      "printf '#!/bin/sh\\n[ \"$1\" = bound ] || exit 0\\nip addr add $ip/$mask dev $interface\\n"
        + "ip route add default via $router\\necho $router >/tmp/router\\n' >\(script);"
        + " chmod +x \(script); ip link set eth0 up; udhcpc -i eth0 -n -q -s \(script) 2>&1")
    let sum = try linux.run(
      "wget -q -O - http://$(cat /tmp/router):\(port)/file | md5sum | cut -c1-32")
    let expected = try files.run("md5sum \(files.path("file")) | cut -c1-32").output
    #expect(sum == expected)
    let resolver = try LoggedProcess("/usr/bin/python3", ["-u", "-c", Self.resolver])
    #expect(resolver.says("ready"))
    let names = try #require(resolver.text.split(separator: " ").dropFirst().first)
    let answer = try linux.run("nslookup desk.example $(cat /tmp/router):\(names) 2>&1; true")
    #expect(answer.contains("192.0.2.42"), "\(answer)")
    #expect(linux.machine.setLink("net0", isUp: false))
    _ = try linux.run("cd /sys/class/net/eth0; while [ $(cat carrier) != 0 ]; do :; done")
    try linux.expectKnownLog()
  }

  /// Answers every question for an address with 192.0.2.42.
  private static let resolver = """
    import socket
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("127.0.0.1", 0))
    print(f"port {s.getsockname()[1]} ready")
    while True:
        d, a = s.recvfrom(512)
        q = d[12:d.index(0, 12) + 5]
        r = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4\\xc0\\0\\2\\x2a"
        s.sendto(d[:2] + b"\\x81\\x80\\0\\1\\0\\1\\0\\0\\0\\0" + q + r, a)
    """

  @Test("switches itself off when told to")
  func ends() throws {
    let linux = try SmallLinux()
    try linux.tell("poweroff -f")
    #expect(linux.machine.waitForEnd() == .guestShutdown)
  }

  @Test("starts anew when told to")
  func reboots() throws {
    let linux = try SmallLinux()
    try linux.tell("reboot -f")
    let isReset = linux.events.wait(until: {
      $0.contains { if case .reset(.guest) = $0 { true } else { false } }
    }) { _ in true }
    #expect(isReset)
  }

  @Test("switches itself off at the power button, as acpid has it")
  func powerButton() throws {
    let linux = try SmallLinux()
    // It listens once it has opened the button's device.
    let button = try linux.inputDevice("Power Button")
    try linux.run(
      "mkdir -p /var/log /var/run /etc/acpi/PWRF; cd /etc/acpi/PWRF; echo '#!/bin/sh' >00000080;"
        + " echo 'poweroff -f' >>00000080; chmod 755 00000080; (acpid -f >/tmp/acpid 2>&1 &);"
        + " cd /; while ! ls -l /proc/$(pidof acpid)/fd | grep -q '/dev/input/\(button)$';"
        + " do :; done 2>/dev/null")
    try linux.machine.pressPowerButton()
    #expect(linux.machine.waitForEnd() == .guestShutdown)
  }
}
