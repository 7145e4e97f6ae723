"""Private namespaces, services, rules and probes, described in a file.

A lab file is YAML; all names are in kebab-case, and one that is not known is an error.  Nothing in
it is given to a shell or evaluated.

    name: port-redirect            a lab of the library is called as its file
    title, group, about            texts of `lab list` and `lab show`
    claims                         {claim, verdict: true | half | false, why, probes}
    backends: [legacy, nft]        one run on each; `both` loads the rules into both at once
    namespaces                     name: `host.Host`
        iptables, ip6tables        arguments of one call an item, or a text for iptables-restore;
                                   with -legacy or -nft at the end always in that backend
        nftables                   text for nft; loaded first with `nftables-first: true`
        rules-file                 a save file beside the lab file, or {iptables: FILE, ...}
        sysctls                    net.* only
        routes, policy, neighbours `routing.Route`, `routing.PolicyRule`, `routing.Neighbour`
        bridges                    name: {ports, addresses, mac, mtu, up}
        services                   {port, protocol, address, backlog, accept, full, interface}
        twin                       a snapshot that gives the namespace the state of a host
    links                          pairs of {namespace, interface, addresses, mtu, mac, up}: veth
    refused                        {namespace, run, says, backends}: what must not be accepted
    probes                         `lab_probe.LabProbe`: the words of `ipttrace probe`, what is
                                   changed before it, and what is expected (`expectation`)
"""
